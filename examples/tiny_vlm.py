"""Make a tiny vision-language model of Qwen2.5-VL's type with random weights, its tokenizer and its image processor, as a directory.

It lets vision-language training run for real on two CPU cores, offline and without anybody's weights:

    python examples/tiny_vlm.py OUT_DIR [--data FILE] [--seed 42]
    python examples/tiny_vlm.py OUT_DIR --images shapes.zip [--rows 96]

The second form makes data beside it: a ZIP of coloured shapes and a train.jsonl of questions about them (dataset.format: vlm-zip). The
same arguments give the same bytes. Needs numpy, pillow, safetensors and tokenizers; neither torch nor transformers.
"""

# ruff: noqa: INP001 - a script beside its data, not a package

from __future__ import annotations

import argparse
import io
import json
import sys
import zipfile
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, ImageDraw
from safetensors.numpy import save
from tiny_model import DEFAULT_DATA, END, END_ID, FILE_MODE, PAD, PAD_ID, START, FloatArray, read_turns, to_json, train_tokenizer

VISION_TOKENS: Final = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
"""Qwen2.5-VL's own; they come last in the vocabulary."""
VOCAB, CONTEXT = 768, 1024
HIDDEN, INTERMEDIATE, LAYERS, HEADS, KV_HEADS = 64, 176, 2, 4, 2
"""Of the language part."""
EYES, EYES_INTERMEDIATE, DEPTH, EYES_HEADS = 32, 64, 2, 2
"""Of the vision part."""
PATCH, FRAMES, MERGE = 14, 2, 2
"""Pixels of a patch's side, frames of one, and patches of a token's side."""
CHAT_TEMPLATE: Final = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<|vision_start|><|image_pad|><|vision_end|>' }}{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}{{ '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
COLOURS: Final = {"red": (200, 30, 30), "green": (30, 160, 60), "blue": (40, 60, 200), "yellow": (220, 200, 40), "black": (20, 20, 20)}
SHAPES: Final = ("circle", "square", "triangle")
STAMP: Final = (2026, 1, 1, 0, 0, 0)
"""Time of every file in the archive, so that the same arguments give the same bytes."""


def build_weights(vocab: int, seed: int) -> dict[str, FloatArray]:
    """Draw all weights, float32, by the names of Qwen2.5-VL's published files; scaled as those of the tiny language model."""
    draw = np.random.default_rng(seed).standard_normal

    def matrix(*shape: int, gain: float = 1.0) -> FloatArray:
        inputs = int(np.prod(shape[1:]))
        return draw(shape, dtype=np.float32) * np.float32(gain / inputs**0.5)

    def zeros(size: int) -> FloatArray:
        return np.zeros(size, dtype=np.float32)

    def ones(size: int) -> FloatArray:
        return np.ones(size, dtype=np.float32)

    kv, residual = KV_HEADS * HIDDEN // HEADS, (2 * LAYERS) ** -0.5
    merged = EYES * MERGE**2
    weights: dict[str, FloatArray] = {
        "visual.patch_embed.proj.weight": matrix(EYES, 3, FRAMES, PATCH, PATCH),
        "visual.merger.ln_q.weight": ones(EYES),
        "visual.merger.mlp.0.weight": matrix(merged, merged),
        "visual.merger.mlp.0.bias": zeros(merged),
        "visual.merger.mlp.2.weight": matrix(HIDDEN, merged),
        "visual.merger.mlp.2.bias": zeros(HIDDEN),
    }
    for block in range(DEPTH):
        prefix = f"visual.blocks.{block}."
        weights |= {f"{prefix}norm1.weight": ones(EYES), f"{prefix}norm2.weight": ones(EYES)}
        for name, (outputs, inputs, gain) in {
            "attn.qkv": (3 * EYES, EYES, 1.0),
            "attn.proj": (EYES, EYES, residual),
            "mlp.gate_proj": (EYES_INTERMEDIATE, EYES, 1.0),
            "mlp.up_proj": (EYES_INTERMEDIATE, EYES, 1.0),
            "mlp.down_proj": (EYES, EYES_INTERMEDIATE, residual),
        }.items():
            weights |= {f"{prefix}{name}.weight": matrix(outputs, inputs, gain=gain), f"{prefix}{name}.bias": zeros(outputs)}
    weights["model.embed_tokens.weight"] = draw((vocab, HIDDEN), dtype=np.float32)
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}."
        for name, outputs in {"q_proj": HIDDEN, "k_proj": kv, "v_proj": kv}.items():
            weights |= {f"{prefix}self_attn.{name}.weight": matrix(outputs, HIDDEN), f"{prefix}self_attn.{name}.bias": zeros(outputs)}
        weights |= {
            f"{prefix}self_attn.o_proj.weight": matrix(HIDDEN, HIDDEN, gain=residual),
            f"{prefix}mlp.gate_proj.weight": matrix(INTERMEDIATE, HIDDEN),
            f"{prefix}mlp.up_proj.weight": matrix(INTERMEDIATE, HIDDEN),
            f"{prefix}mlp.down_proj.weight": matrix(HIDDEN, INTERMEDIATE, gain=residual),
            f"{prefix}input_layernorm.weight": ones(HIDDEN),
            f"{prefix}post_attention_layernorm.weight": ones(HIDDEN),
        }
    return weights | {"model.norm.weight": ones(HIDDEN), "lm_head.weight": matrix(vocab, HIDDEN)}


def build_config(vocab: int, first: int) -> dict[str, object]:
    """Return config.json of a Qwen2_5_VLForConditionalGeneration; ``first`` is the id of the first vision token."""
    start, end, image, video = range(first, first + len(VISION_TOKENS))
    return {
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "model_type": "qwen2_5_vl",
        "dtype": "float32",
        "image_token_id": image,
        "tie_word_embeddings": False,
        "video_token_id": video,
        "vision_end_token_id": end,
        "vision_start_token_id": start,
        "text_config": {
            "attention_dropout": 0.0,
            "bos_token_id": None,
            "eos_token_id": END_ID,
            "hidden_act": "silu",
            "hidden_size": HIDDEN,
            "intermediate_size": INTERMEDIATE,
            "max_position_embeddings": CONTEXT,
            "model_type": "qwen2_5_vl_text",
            "num_attention_heads": HEADS,
            "num_hidden_layers": LAYERS,
            "num_key_value_heads": KV_HEADS,
            "pad_token_id": PAD_ID,
            "rms_norm_eps": 1e-06,
            "rope_parameters": {"mrope_section": [2, 3, 3], "rope_theta": 10000.0, "rope_type": "default"},
            "use_cache": True,
            "use_sliding_window": False,
            "vocab_size": vocab,
        },
        "vision_config": {
            "depth": DEPTH,
            "fullatt_block_indexes": [DEPTH - 1],
            "hidden_act": "silu",
            "hidden_size": EYES,
            "in_channels": 3,
            "intermediate_size": EYES_INTERMEDIATE,
            "model_type": "qwen2_5_vl_vision",
            "num_heads": EYES_HEADS,
            "out_hidden_size": HIDDEN,
            "patch_size": PATCH,
            "spatial_merge_size": MERGE,
            "temporal_patch_size": FRAMES,
            "tokens_per_second": 4,
            "window_size": 4 * PATCH,
        },
    }


def build_files(turns: list[str], seed: int) -> dict[str, bytes]:
    """Return the content of the directory's files by name."""
    tokenizer = train_tokenizer(turns, VOCAB)
    first = tokenizer.get_vocab_size()
    tokenizer.add_special_tokens(list(VISION_TOKENS))
    vocab = tokenizer.get_vocab_size()
    special = {"eos_token": END, "pad_token": PAD}
    tokenizer_config = {
        **special,
        "additional_special_tokens": [START, *VISION_TOKENS],
        "clean_up_tokenization_spaces": False,
        "model_max_length": CONTEXT,
        "processor_class": "Qwen2_5_VLProcessor",
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    side = (PATCH * MERGE) ** 2
    processor = {
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_processor_type": "Qwen2VLImageProcessor",
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "max_pixels": 16 * side,
        "merge_size": MERGE,
        "min_pixels": 4 * side,
        "patch_size": PATCH,
        "processor_class": "Qwen2_5_VLProcessor",
        "temporal_patch_size": FRAMES,
    }
    return {
        "chat_template.jinja": CHAT_TEMPLATE.encode(),
        "config.json": to_json(build_config(vocab, first)),
        "generation_config.json": to_json({"eos_token_id": END_ID, "pad_token_id": PAD_ID, "max_new_tokens": 128}),
        "model.safetensors": save(build_weights(vocab, seed), metadata={"format": "pt"}),
        "preprocessor_config.json": to_json(processor),
        "tokenizer.json": tokenizer.to_str(pretty=True).encode(),
        "tokenizer_config.json": to_json(tokenizer_config),
    }


def draw_shape(shape: str, colour: str, size: tuple[int, int]) -> bytes:
    """PNG of a shape on white."""
    image = Image.new("RGB", size, (255, 255, 255))
    pen, (width, height) = ImageDraw.Draw(image), size
    box = (width // 4, height // 4, 3 * width // 4, 3 * height // 4)
    match shape:
        case "circle":
            pen.ellipse(box, fill=COLOURS[colour])
        case "square":
            pen.rectangle(box, fill=COLOURS[colour])
        case _:
            pen.polygon([(width // 2, box[1]), (box[0], box[3]), (box[2], box[3])], fill=COLOURS[colour])
    stream = io.BytesIO()
    image.save(stream, format="PNG")
    return stream.getvalue()


def write_images(path: Path, rows: int, seed: int) -> None:
    """Write a ZIP of shapes and questions about them; every eighth row shows two images, every ninth none."""
    rng = np.random.default_rng(seed)
    names = [(shape, colour) for shape in SHAPES for colour in COLOURS]
    sizes = [(112, 84), (84, 112), (140, 112)]
    lines = []
    for row in range(rows):
        shown = [names[int(at)] for at in rng.choice(len(names), size=2, replace=False)][: 2 if row % 8 == 7 else 1]
        if row % 9 == 8:
            user: object = f"Name a shape that is not a {shown[0][0]}."
            answer = f"A {SHAPES[SHAPES.index(shown[0][0]) - 1]}."
        else:
            parts = [{"type": "image", "image": f"images/{colour}-{shape}.png"} for shape, colour in shown]
            user = [*parts, {"type": "text", "text": "What do you see?"}]
            answer = "I see " + " and ".join(f"a {colour} {shape}" for shape, colour in shown) + "."
        lines.append(json.dumps({"messages": [{"role": "user", "content": user}, {"role": "assistant", "content": answer}]}))
    files = {"train.jsonl": ("\n".join(lines) + "\n").encode()}
    files |= {f"images/{colour}-{shape}.png": draw_shape(shape, colour, sizes[at % 3]) for at, (shape, colour) in enumerate(names)}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name, STAMP), content)
    path.chmod(FILE_MODE)


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Make a tiny vision-language model with random weights, and images to train it on.")
    parser.add_argument("out", metavar="OUT_DIR", type=Path, help="directory for the model; made if it does not exist")
    parser.add_argument("--data", metavar="FILE", type=Path, default=DEFAULT_DATA, help="JSONL in messages format for the tokenizer")
    parser.add_argument("--images", metavar="ZIP", type=Path, help="write a ZIP of images and questions too")
    parser.add_argument("--rows", type=int, default=96, help="questions in the ZIP (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=42, help="seed of weights and questions (default: %(default)s)")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for name, content in build_files(read_turns(args.data), args.seed).items():
        path = args.out / name
        path.write_bytes(content)
        path.chmod(FILE_MODE)
    if args.images is not None:
        write_images(args.images, args.rows, args.seed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
