-- Health of a FineTuneJob. A sync (and with it a wave) goes on as soon as the job is what Git asks for: while it trains for a week, waits in
-- a queue or is paused it is Healthy. As a hook it is what a batch Job is: done when the training is done.
local annotations = obj.metadata.annotations or {}
local is_hook = annotations["argocd.argoproj.io/hook"] ~= nil or annotations["helm.sh/hook"] ~= nil

local function answer(status, message)
  return {status = status, message = message}
end

local status = obj.status
if status == nil or status.conditions == nil or status.observedGeneration ~= obj.metadata.generation then
  return answer("Progressing", "Waiting for the operator to look at this generation")
end

local conditions = {}
for _, condition in ipairs(status.conditions) do
  conditions[condition.type] = condition
end

local function is_true(kind)
  return conditions[kind] ~= nil and conditions[kind].status == "True"
end

local phase = status.phase or "Pending"
local message = phase
if conditions["Ready"] ~= nil and conditions["Ready"].message ~= nil and conditions["Ready"].message ~= "" then
  message = phase .. ": " .. conditions["Ready"].message
end

if is_true("Stalled") or is_true("Failed") then
  return answer("Degraded", message)
end
if is_true("Succeeded") then
  return answer("Healthy", message)
end
if is_hook then
  if conditions["Succeeded"] ~= nil and conditions["Succeeded"].status == "False" then
    return answer("Degraded", message)
  end
  if is_true("Suspended") then
    return answer("Suspended", message)
  end
  return answer("Progressing", message)
end
if is_true("Reconciling") then
  return answer("Progressing", message)
end
if is_true("Ready") then
  return answer("Healthy", message)
end
return answer("Progressing", message)
