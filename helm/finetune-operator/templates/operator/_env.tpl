{{/* The operator's settings. Those in operator.settings are named alike: resyncSeconds is FINETUNE_OPERATOR_RESYNC_SECONDS. */}}
{{- define "finetune-operator.env" -}}
- name: FINETUNE_OPERATOR_IDENTITY
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
{{- $fullname := include "finetune-operator.fullname" . }}
{{- $settings := dict
  "NAMESPACE" .Release.Namespace
  "WATCH_NAMESPACES" (include "finetune-operator.watchNamespaces" . | fromJsonArray | join ",")
  "CLUSTER_READS" (include "finetune-operator.clusterReads" .)
  "TRAINER_IMAGE" (include "finetune-operator.image" (dict "root" . "image" "trainer"))
  "IMAGE_PULL_POLICY" .Values.image.pullPolicy
  "IMAGE_PULL_SECRETS" (join "," .Values.image.pullSecrets)
  "TRAINER_HTTP_PROXY" .Values.trainer.proxy.http
  "TRAINER_HTTPS_PROXY" .Values.trainer.proxy.https
  "TRAINER_NO_PROXY" .Values.trainer.proxy.noProxy
  "TRAINER_CA_CONFIGMAP" .Values.trainer.caBundle.configMap
  "TRAINER_CA_KEY" .Values.trainer.caBundle.key
  "TRAINER_OFFLINE" .Values.trainer.offline
  "TRUSTED_MODEL_CODE" (join "," .Values.trainer.trustRemoteCode.allowed)
  "STORAGE_ENDPOINT" (include "finetune-operator.storeEndpoint" .)
  "STORAGE_REGION" (include "finetune-operator.storeRegion" .)
  "STORAGE_BUCKET" (include "finetune-operator.storeBucket" .)
  "STORAGE_SECRET" .Values.storage.secretName
  "PROGRESS_URL" (printf "https://%s.%s.svc" $fullname .Release.Namespace)
  "TLS_SOURCE" (ternary "external" "self" (ne .Values.tls.existingSecret ""))
  "TLS_SECRET" (include "finetune-operator.tlsSecret" .)
  "BILLING" (.Values.billing | toJson)
  "LEASE_NAME" $fullname
  "LOG_LEVEL" .Values.operator.logLevel
  "GRAFANA_URL" .Values.grafana.url
  "SCRAPE_ANNOTATIONS" .Values.metrics.scrapeAnnotations
  "WEBHOOK_URL" .Values.notifications.webhook.url
  "WEBHOOK_REASONS" (join "," .Values.notifications.webhook.reasons)
}}
{{- range $key, $value := .Values.operator.settings }}
{{- $_ := set $settings ($key | snakecase | upper) $value }}
{{- end }}
{{- range $name, $value := $settings }}
{{- if not (kindIs "invalid" $value) }}
{{- with $value | toString }}
- name: FINETUNE_OPERATOR_{{ $name }}
  value: {{ . | quote }}
{{- end }}
{{- end }}
{{- end }}
{{- with .Values.notifications.webhook.existingSecret }}
{{- range $key := list "url" "token" }}
{{- if not (and (eq $key "url") $.Values.notifications.webhook.url) }}
- name: FINETUNE_OPERATOR_WEBHOOK_{{ upper $key }}
  valueFrom:
    secretKeyRef:
      name: {{ $.Values.notifications.webhook.existingSecret }}
      key: {{ $key }}
      optional: {{ eq $key "token" }}
{{- end }}
{{- end }}
{{- end }}
{{- with .Values.operator.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}
