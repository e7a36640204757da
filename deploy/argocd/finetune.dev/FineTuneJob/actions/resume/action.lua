-- Takes back whatever keeps the job from running: suspend, replicas 0, Stopped, a pause by a budget or limit.
local status = obj.status or {}
local asked = obj.spec.suspend == true or obj.spec.replicas == 0 or obj.spec.desiredState == "Stopped"
obj.spec.suspend = false
if obj.spec.replicas == 0 then
  local before = status.lastReplicas or 0
  obj.spec.replicas = before > 0 and before or 1
end
if obj.spec.desiredState == "Stopped" then
  obj.spec.desiredState = "Running"
end
if not asked then
  obj.metadata.annotations = obj.metadata.annotations or {}
  obj.metadata.annotations["finetune.dev/request"] = "resume/" .. obj.metadata.resourceVersion
end
return obj
