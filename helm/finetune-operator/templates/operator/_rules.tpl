{{- /* The rights of operator/src/finetune_operator/cluster/rbac.py, which says what each is for; a test keeps them equal. */}}
{{- /* In a namespace with jobs. */}}
{{- define "finetune-operator.jobRules" -}}
- apiGroups: [finetune.dev]
  resources: [finetunejobs]
  verbs: [get, list, watch, patch]
- apiGroups: [finetune.dev]
  resources: [finetunejobs/status]
  verbs: [patch]
- apiGroups: [finetune.dev]
  resources: [finetunejobs/finalizers]
  verbs: [update]
- apiGroups: [finetune.dev]
  resources: [finetunepresets]
  verbs: [get]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
- apiGroups: [""]
  resources: [services]
  verbs: [get, list, create, delete]
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, list, create, delete, patch]
- apiGroups: [""]
  resources: [events]
  verbs: [create]
- apiGroups: [kueue.x-k8s.io]
  resources: [workloads]
  verbs: [list]
{{- end -}}

{{/* Beyond namespaces. */}}
{{- define "finetune-operator.clusterRules" -}}
- apiGroups: [finetune.dev]
  resources: [clusterfinetunepresets]
  verbs: [get]
- apiGroups: [finetune.dev]
  resources: [trainingmethods]
  verbs: [get]
- apiGroups: [authentication.k8s.io]
  resources: [tokenreviews]
  verbs: [create]
{{- end -}}

{{/* In the operator's own namespace: the Lease, and the one Secret of its certificate, which it only reads if somebody else fills it. */}}
{{- define "finetune-operator.ownRules" -}}
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [create]
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  resourceNames: [{{ include "finetune-operator.fullname" . }}]
  verbs: [get, update]
- apiGroups: [""]
  resources: [secrets]
  resourceNames: [{{ include "finetune-operator.tlsSecret" . }}]
  verbs: {{ ternary "[get, patch]" "[get]" (empty .Values.tls.existingSecret) }}
{{- end -}}
