-- What may be done with a FineTuneJob now.
local status = obj.status or {}
local phase = status.phase or "Pending"
local wanted = obj.spec.desiredState or "Running"
local paused = obj.spec.suspend == true or obj.spec.replicas == 0

local outcome = {}
for _, condition in ipairs(status.conditions or {}) do
  outcome[condition.type] = condition.status
end
-- Failed can be tried again; Succeeded and Cancelled are for good.
local over = outcome["Succeeded"] == "True" or (outcome["Succeeded"] == "False" and outcome["Failed"] ~= "True")
local running = not over and not paused and wanted == "Running"
local resting = paused or wanted == "Stopped" or phase == "Paused"

local actions = {}
actions["pause"] = {
  ["disabled"] = not running or phase == "Failed" or phase == "Paused",
  ["displayName"] = "Pause (save a checkpoint, release the pods)",
  ["iconClass"] = "fa fa-fw fa-pause-circle",
}
actions["resume"] = {
  ["disabled"] = over or wanted == "Cancelled" or not resting,
  ["displayName"] = "Resume",
  ["iconClass"] = "fa fa-fw fa-play-circle",
}
actions["stop"] = {
  ["disabled"] = over or wanted ~= "Running" or phase == "Failed",
  ["displayName"] = "Stop (save a checkpoint; the spec may then be edited)",
  ["iconClass"] = "fa fa-fw fa-stop-circle",
}
actions["checkpoint-now"] = {
  ["disabled"] = not running or (phase ~= "Training" and phase ~= "Evaluating"),
  ["displayName"] = "Checkpoint now",
  ["iconClass"] = "fa fa-fw fa-save",
}
actions["retry"] = {
  ["disabled"] = phase ~= "Failed" or not running,
  ["displayName"] = "Retry",
  ["iconClass"] = "fa fa-fw fa-redo",
}
return actions
