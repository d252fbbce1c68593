{{- define "parley.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "parley.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains (include "parley.name" .) .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "parley.name" .) | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* Labels take (list root component). */}}
{{- define "parley.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ include "parley.name" $root }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "parley.labels" -}}
{{- $root := index . 0 -}}
{{ include "parley.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Labels of pods: those that change with the chart's version would restart every store. */}}
{{- define "parley.podLabels" -}}
{{- $root := index . 0 -}}
{{ include "parley.selector" . }}
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* An image of {registry, repository, tag}; (list image default-tag). */}}
{{- define "parley.image" -}}
{{- $i := index . 0 -}}
{{- if $i.registry }}{{ $i.registry }}/{{ end }}{{ $i.repository }}:{{ $i.tag | default (index . 1) }}
{{- end }}

{{/* Pod Security "restricted", and nothing of the root file system can be written. */}}
{{- define "parley.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* Where pods go; (list root component). */}}
{{- define "parley.placement" -}}
{{- $root := index . 0 -}}
{{- $v := $root.Values -}}
{{- with $v.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $v.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $v.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $v.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- if $v.topologySpread.enabled }}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: {{ $v.topologySpread.whenUnsatisfiable }}
    labelSelector:
      matchLabels: {{- include "parley.selector" . | nindent 8 }}
{{- /* Not a second constraint: nodes without a zone would then count for neither. */}}
{{- if $v.topologySpread.zones }}
affinity:
  podAntiAffinity:
    preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 100
        podAffinityTerm:
          topologyKey: topology.kubernetes.io/zone
          labelSelector:
            matchLabels: {{- include "parley.selector" . | nindent 14 }}
{{- end }}
{{- end }}
{{- end }}

{{- define "parley.natsHost" -}}
{{ include "parley.fullname" . }}-nats
{{- end }}

{{- define "parley.natsSecret" -}}
{{- .Values.nats.auth.existingSecret | default (printf "%s-nats" (include "parley.fullname" .)) }}
{{- end }}

{{/* The Secret with the certificate of the NATS servers, "" when they need none. */}}
{{- define "parley.tlsSecret" -}}
{{- if and .Values.nats.enabled (or .Values.tls.clients (and .Values.nats.clusterTLS (gt (int .Values.nats.replicas) 1))) -}}
{{- .Values.tls.existingSecret | default (printf "%s-nats-tls" (include "parley.fullname" .)) }}
{{- end }}
{{- end }}

{{/* The Secret with the authority that services check NATS' certificate with, "" for that of the system. */}}
{{- define "parley.natsCA" -}}
{{- if .Values.nats.enabled }}{{ if .Values.tls.clients }}{{ include "parley.tlsSecret" . }}{{ end }}{{ else }}{{ .Values.nats.external.caSecret }}{{ end }}
{{- end }}

{{- define "parley.natsURL" -}}
{{- if .Values.nats.enabled -}}
{{ ternary "tls" "nats" .Values.tls.clients }}://{{ include "parley.natsHost" . }}:4222
{{- else -}}
{{ join "," (required "nats.external.urls is needed when nats.enabled is false" .Values.nats.external.urls) }}
{{- end }}
{{- end }}

{{/* Copies of each stream and bucket. */}}
{{- define "parley.natsReplicas" -}}
{{- if .Values.nats.enabled }}{{ if ge (int .Values.nats.replicas) 3 }}3{{ else }}1{{ end }}{{ else }}{{ .Values.nats.external.replicas }}{{ end }}
{{- end }}

{{- define "parley.sqlSecret" -}}
{{- $own := printf "%s-postgresql" (include "parley.fullname" .) }}
{{- if .Values.postgresql.enabled }}{{ $own }}{{ else }}{{ .Values.postgresql.external.existingSecret | default $own }}{{ end }}
{{- end }}

{{- define "parley.redisSecret" -}}
{{- $own := printf "%s-redis" (include "parley.fullname" .) }}
{{- if .Values.redis.enabled }}{{ $own }}{{ else }}{{ .Values.redis.external.existingSecret | default $own }}{{ end }}
{{- end }}

{{/* A value of a Secret that is made once: what is there stays. (list root secret key) gives base64; it begins with a letter, for the
servers' configuration would read other words as numbers. */}}
{{- define "parley.kept" -}}
{{- $root := index . 0 -}}
{{- $have := (lookup "v1" "Secret" $root.Release.Namespace (index . 1)).data | default dict -}}
{{- get $have (index . 2) | default (printf "p%s" (randAlphaNum 31) | b64enc) }}
{{- end }}

{{- define "parley.natsConf" -}}
server_name: $POD_NAME
listen: "0.0.0.0:4222"
http: "0.0.0.0:8222"
pid_file: /run/nats/nats.pid
# Two subscriptions a connected user: the cache of subjects costs more than it saves.
disable_sublist_cache: true
# A gateway writes in bursts; ten seconds is what a slow disk may take.
write_deadline: "10s"
# A service that stands still or is cut off gets requests until the server notices.
ping_interval: "5s"
ping_max: 2
lame_duck_grace_period: "5s"
lame_duck_duration: "30s"
# "Accepted means stored" also when all servers lose power at once.
jetstream { store_dir: /data, sync_interval: always, max_file_store: {{ int64 .Values.nats.maxFileStoreBytes }}, max_memory_store: 64MB }
include nats-users.conf
{{- if .Values.tls.clients }}
tls { cert_file: /etc/nats-tls/tls.crt, key_file: /etc/nats-tls/tls.key, ca_file: /etc/nats-tls/ca.crt, timeout: 5 }
{{- end }}
{{- if (gt (int .Values.nats.replicas) 1) }}
cluster {
  name: {{ include "parley.fullname" . }}
  listen: "0.0.0.0:6222"
  authorization { user: route, password: $NATS_ROUTE_PASSWORD, timeout: 5 }
  routes: $NATS_ROUTES
  # Clients know the Service's name: addresses of pods go out of date, and no certificate has them.
  no_advertise: true
  {{- if .Values.nats.clusterTLS }}
  tls { cert_file: /etc/nats-tls/tls.crt, key_file: /etc/nats-tls/tls.key, ca_file: /etc/nats-tls/ca.crt, verify: true, timeout: 5 }
  {{- end }}
}
{{- end }}
{{- end }}
