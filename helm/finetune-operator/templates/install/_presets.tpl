{{/* Whether this API server knows the kind of the presets. A release that is about to install it creates them after that, as hooks. */}}
{{- define "finetune-operator.presetsServed" -}}
{{- .Capabilities.APIVersions.Has "finetune.dev/v1alpha1/ClusterFineTunePreset" -}}
{{- end -}}

{{/* A preset made by a hook belongs to the release as any other object: the next upgrade changes it in place. */}}
{{- define "finetune-operator.presetAnnotations" -}}
meta.helm.sh/release-name: {{ .Release.Name }}
meta.helm.sh/release-namespace: {{ .Release.Namespace }}
{{- if .Values.crds.keep }}
{{ include "finetune-operator.keep" . }}
{{- end }}
{{- if ne (include "finetune-operator.presetsServed" .) "true" }}
helm.sh/hook: post-install,post-upgrade
helm.sh/hook-weight: "1"
{{- end }}
{{- end -}}
