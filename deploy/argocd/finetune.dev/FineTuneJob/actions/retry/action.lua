-- Ends Failed: the job goes on from its newest complete checkpoint. Each request has a token of its own.
obj.metadata.annotations = obj.metadata.annotations or {}
obj.metadata.annotations["finetune.dev/request"] = "retry/" .. obj.metadata.resourceVersion
return obj
