-- A checkpoint at the next step, without stopping. Each request has a token of its own: the version of the object it was made from.
obj.metadata.annotations = obj.metadata.annotations or {}
obj.metadata.annotations["finetune.dev/request"] = "checkpoint/" .. obj.metadata.resourceVersion
return obj
