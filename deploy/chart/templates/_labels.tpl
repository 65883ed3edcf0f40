{{/* Labels of everything. */}}
{{- define "lastpacket.labels" -}}
{{ include "lastpacket.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end }}

{{/* Labels that tell the agent's pods. */}}
{{- define "lastpacket.selector" -}}
app.kubernetes.io/name: lastpacket
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}
