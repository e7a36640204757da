{{/* Prefix of object names: the release, with "finetune" in it so that the objects can be recognised. */}}
{{- define "finetune-operator.prefix" -}}
{{- $release := default .Release.Name .Values.fullnameOverride | trimSuffix "-operator" -}}
{{- ternary $release (printf "%s-finetune" $release) (contains "finetune" $release) | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* Name of the operator's objects. */}}
{{- define "finetune-operator.fullname" -}}
{{- include "finetune-operator.prefix" . }}-operator
{{- end -}}

{{/* Name of cluster-wide objects: two releases in different namespaces never share one. */}}
{{- define "finetune-operator.clusterName" -}}
{{- printf "%s-%s" .Release.Namespace (include "finetune-operator.fullname" .) -}}
{{- end -}}

{{/* Labels that select pods; they never change during the life of a release. Takes (dict "root" $ "component" name). */}}
{{- define "finetune-operator.selectorLabels" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* Labels of every object. Takes (dict "root" $ "component" name). */}}
{{- define "finetune-operator.labels" -}}
{{ include "finetune-operator.selectorLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: finetune
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Annotations of objects that outlive the release. Helm adopts them again when a release of this name is installed here. */}}
{{- define "finetune-operator.keep" -}}
helm.sh/resource-policy: keep
{{- end -}}

{{/* Full reference of an image. Takes (dict "root" $ "image" operator|trainer|minio). */}}
{{- define "finetune-operator.image" -}}
{{- $given := index .root.Values.image .image -}}
{{- if $given -}}
{{- $given -}}
{{- else -}}
{{- $registry := .root.Values.image.registry | trimSuffix "/" -}}
{{- printf "%sfinetune-%s:%s" (ternary (printf "%s/" $registry) "" (ne $registry "")) .image .root.Chart.AppVersion -}}
{{- end -}}
{{- end -}}

{{- define "finetune-operator.serviceAccountName" -}}
{{- default (include "finetune-operator.fullname" .) .Values.serviceAccount.name -}}
{{- end -}}

{{- define "finetune-operator.storeName" -}}
{{- include "finetune-operator.prefix" . }}-minio
{{- end -}}

{{/* What jobs reach the store by; empty for AWS S3 itself. */}}
{{- define "finetune-operator.storeEndpoint" -}}
{{- if .Values.storage.embedded.enabled -}}
{{- printf "http://%s.%s.svc:9000" (include "finetune-operator.storeName" .) .Release.Namespace -}}
{{- else -}}
{{- .Values.storage.external.endpoint -}}
{{- end -}}
{{- end -}}

{{/* Port of an external store: as in its endpoint, else that of its scheme. */}}
{{- define "finetune-operator.storePort" -}}
{{- $url := default "https://s3.amazonaws.com" .Values.storage.external.endpoint | urlParse -}}
{{- default (ternary "80" "443" (eq $url.scheme "http")) (regexFind ":[0-9]+$" $url.host | trimPrefix ":") -}}
{{- end -}}

{{- define "finetune-operator.storeRegion" -}}
{{- ternary "us-east-1" .Values.storage.external.region .Values.storage.embedded.enabled -}}
{{- end -}}

{{- define "finetune-operator.storeBucket" -}}
{{- ternary .Values.storage.embedded.bucket .Values.storage.external.bucket .Values.storage.embedded.enabled -}}
{{- end -}}

{{/* Namespaces that get the Secret finetune-storage, as a JSON list: those of the jobs and the release's own. */}}
{{- define "finetune-operator.storeNamespaces" -}}
{{- append (.Values.jobNamespaces | default list) .Release.Namespace | uniq | sortAlpha | toJson -}}
{{- end -}}

{{/* Namespaces the operator works in with rbac.namespaced, as a JSON list. */}}
{{- define "finetune-operator.watchNamespaces" -}}
{{- if .Values.rbac.namespaced -}}
{{- append (.Values.jobNamespaces | default list) .Release.Namespace | uniq | sortAlpha | toJson -}}
{{- else -}}
[]
{{- end -}}
{{- end -}}

{{/* Pod Security "restricted", and files of its own for each pod. */}}
{{- define "finetune-operator.podSecurityContext" -}}
runAsNonRoot: true
{{- range $key, $id := .Values.podSecurityContext }}
{{- if $id }}
{{ $key }}: {{ int64 $id }}
{{- end }}
{{- end }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "finetune-operator.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{- define "finetune-operator.imagePullSecrets" -}}
{{- range .Values.image.pullSecrets }}
- name: {{ . }}
{{- end }}
{{- end -}}

{{/* Where pods may run, as part of a pod spec. Takes the values of the operator or the store. */}}
{{- define "finetune-operator.placement" -}}
{{- $chosen := dict -}}
{{- range $key := list "priorityClassName" "nodeSelector" "tolerations" "affinity" -}}
{{- with index $ $key -}}
{{- $_ := set $chosen $key . -}}
{{- end -}}
{{- end -}}
{{- with $chosen -}}
{{- toYaml . -}}
{{- end -}}
{{- end -}}

{{/* Secret with the certificate of the progress endpoint. */}}
{{- define "finetune-operator.tlsSecret" -}}
{{- default (printf "%s-tls" (include "finetune-operator.fullname" .)) .Values.tls.existingSecret -}}
{{- end -}}

{{/* Whether the operator may read cluster presets and training methods and have tokens reviewed: true or false, as text. */}}
{{- define "finetune-operator.clusterReads" -}}
{{- or (not .Values.rbac.namespaced) .Values.rbac.clusterReads -}}
{{- end -}}

{{/* Annotations of what the Helm test needs; it goes when the test has succeeded. */}}
{{- define "finetune-operator.testAnnotations" -}}
helm.sh/hook: test
helm.sh/hook-weight: "0"
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end -}}
