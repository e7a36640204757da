module finetune.dev/cluster/gitops

go 1.26.0
