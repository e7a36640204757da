{{/* Whether this API server knows a kind of ours. A release that is about to install it creates its objects after that, as hooks. */}}
{{- define "finetune-operator.served" -}}
{{- .root.Capabilities.APIVersions.Has (printf "finetune.dev/v1alpha1/%s" .kind) -}}
{{- end -}}

{{/* Whether objects are to be made of a kind that the API server does not know yet. */}}
{{- define "finetune-operator.awaitsKinds" -}}
{{- $presets := and .Values.presets.install (ne (include "finetune-operator.served" (dict "root" . "kind" "ClusterFineTunePreset")) "true") -}}
{{- $models := and .Values.baseModels.install (ne (include "finetune-operator.served" (dict "root" . "kind" "BaseModel")) "true") -}}
{{- $gpus := and .Values.gpuTypes.install (ne (include "finetune-operator.served" (dict "root" . "kind" "GpuType")) "true") -}}
{{- or $presets $models $gpus -}}
{{- end -}}

{{/* An object made by a hook belongs to the release as any other: the next upgrade changes it in place. */}}
{{- define "finetune-operator.shippedAnnotations" -}}
meta.helm.sh/release-name: {{ .root.Release.Name }}
meta.helm.sh/release-namespace: {{ .root.Release.Namespace }}
{{- if .root.Values.crds.keep }}
{{ include "finetune-operator.keep" .root }}
{{- end }}
{{- if ne (include "finetune-operator.served" .) "true" }}
helm.sh/hook: post-install,post-upgrade
helm.sh/hook-weight: "1"
{{- end }}
{{- end -}}
