{{/* Labels that every object bears; the selector's own two never change in a release's life. */}}
{{- define "partbook.labels" -}}
app.kubernetes.io/name: partbook
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "partbook.selector" -}}
app.kubernetes.io/name: partbook
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* A digest, where one is given, says which image it is; the tag is then for people. */}}
{{- define "partbook.image" -}}
{{ .repository }}:{{ .tag }}{{ if .digest }}@{{ .digest }}{{ end }}
{{- end }}

{{/*
fsGroup lets the pod's user write its volume. OnRootMismatch: otherwise Kubernetes opens every file in it to the group
at each start, and Partbook refuses a key that others may read.
*/}}
{{- define "partbook.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "partbook.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: ["ALL"]
{{- end }}

{{/* Files of a Secret reach a pod readable for its group; Partbook wants keys that are their owner's alone, in memory. */}}
{{- define "partbook.placing" -}}
resources:
  requests: {cpu: 10m, memory: 16Mi}
  limits: {cpu: 100m, memory: 64Mi}
{{- end }}

{{- define "partbook.claim" -}}
accessModes: ["ReadWriteOnce"]
{{- if .className }}
storageClassName: {{ .className | quote }}
{{- end }}
resources:
  requests:
    storage: {{ .size }}
{{- end }}

{{- define "partbook.namesOnly" -}}
- to:
    - namespaceSelector:
        matchLabels:
          kubernetes.io/metadata.name: kube-system
  ports:
    - {port: 53, protocol: UDP}
    - {port: 53, protocol: TCP}
{{- end }}
