{{/* What the operator may do in a namespace with jobs. */}}
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
  verbs: [get, list, watch]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [create, delete, get, list, watch]
- apiGroups: [""]
  resources: [services, configmaps]
  verbs: [create, delete, get, patch]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
- apiGroups: [""]
  resources: [events]
  verbs: [create, patch]
{{- end -}}

{{/* What the operator reads beyond namespaces, and has reviewed. */}}
{{- define "finetune-operator.clusterRules" -}}
- apiGroups: [finetune.dev]
  resources: [clusterfinetunepresets]
  verbs: [get, list, watch]
- apiGroups: [""]
  resources: [namespaces]
  verbs: [get, list, watch]
- apiGroups: [authentication.k8s.io]
  resources: [tokenreviews]
  verbs: [create]
{{- end -}}

{{/* What the operator may do in its own namespace: the Lease, and the one Secret of its certificate. */}}
{{- define "finetune-operator.ownRules" -}}
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [create]
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  resourceNames: [{{ include "finetune-operator.fullname" . }}]
  verbs: [get, update, patch]
- apiGroups: [""]
  resources: [secrets]
  resourceNames: [{{ include "finetune-operator.tlsSecret" . }}]
  verbs: {{ ternary "[get]" "[get, update, patch]" (ne .Values.tls.existingSecret "") }}
{{- end -}}
