"""What people call a dataset, read as one canonical form per method.

Canonical rows are what :mod:`finetune_trainer.prepare.examples` reads and what the library's trainers take:

* sft, pretrain: ``messages`` | ``prompt`` and ``completion`` | ``text``
* dpo, reward: ``prompt``, ``chosen``, ``rejected``
* kto: ``prompt``, ``completion``, ``label``
* grpo: ``prompt`` and every other column

``prompt``, ``completion``, ``chosen`` and ``rejected`` are texts, or lists of messages, all of a row alike. ``tools`` may be beside them.
"""
