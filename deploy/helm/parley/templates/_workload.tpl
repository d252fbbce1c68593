{{/* Deployment, ServiceAccount and PodDisruptionBudget of one of our programs:
dict root, name, env (a list), volumes, mounts, and for gateways ports, lifecycle, grace, strategy, noReplicas. */}}
{{- define "parley.workload" -}}
{{- $root := .root -}}
{{- $v := index $root.Values .name -}}
{{- $full := printf "%s-%s" (include "parley.fullname" $root) .name -}}
{{- $of := list $root .name -}}
{{- $ca := include "parley.natsCA" $root -}}
{{- $creds := and (not $root.Values.nats.enabled) $root.Values.nats.external.credsSecret -}}
{{- /* By name, so that each is there once: what config says wins. */}}
{{- $env := dict }}
{{- $plain := dict "PARLEY_ADMIN" ":9090" "PARLEY_LOG_LEVEL" $root.Values.logLevel "PARLEY_LOG_FORMAT" $root.Values.logFormat "PARLEY_NATS_URL" (include "parley.natsURL" $root) }}
{{- if $creds }}
{{- $_ := set $plain "PARLEY_NATS_CREDS" (printf "/etc/parley/nats-creds/%s.creds" .name) }}
{{- else if or $root.Values.nats.enabled $root.Values.nats.external.users }}
{{- $user := ternary (printf "%s-b" .name) .name (eq $root.Values.nats.auth.slot "b") }}
{{- $_ := set $plain "PARLEY_NATS_USER" $user }}
{{- $_ := set $env "PARLEY_NATS_PASSWORD" (dict "name" "PARLEY_NATS_PASSWORD" "valueFrom" (dict "secretKeyRef" (dict "name" (include "parley.natsSecret" $root) "key" (printf "%s-password" $user)))) }}
{{- end }}
{{- if $ca }}{{ $_ := set $plain "PARLEY_NATS_CA" "/etc/parley/nats-ca/ca.crt" }}{{ end }}
{{- with $v.goMemLimit }}{{ $_ := set $plain "GOMEMLIMIT" . }}{{ end }}
{{- range $k, $x := $plain }}{{ $_ := set $env $k (dict "name" $k "value" $x) }}{{ end }}
{{- range .env }}{{ $_ := set $env .name . }}{{ end }}
{{- range $k, $x := merge (dict) $v.config $root.Values.config }}
{{- $name := printf "PARLEY_%s" (upper $k | replace "-" "_") }}
{{- $text := toString $x }}
{{- if kindIs "slice" $x }}{{ $text = join "," $x }}{{ else if kindIs "float64" $x }}{{ if eq $x (floor $x) }}{{ $text = printf "%.0f" $x }}{{ end }}{{ end }}
{{- $_ := set $env $name (dict "name" $name "value" $text) }}
{{- end }}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ $full }}
  labels: {{- include "parley.labels" $of | nindent 4 }}
  {{- with $root.Values.serviceAccount.annotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
automountServiceAccountToken: false
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ $full }}
  labels: {{- include "parley.labels" $of | nindent 4 }}
spec:
  {{- if not .noReplicas }}
  replicas: {{ $v.replicas }}
  {{- else }}
  {{- /* How many there are is the autoscaler's to say. Without a number, though, turning it on would first leave one of them. */}}
  {{- with lookup "apps/v1" "Deployment" $root.Release.Namespace $full }}
  replicas: {{ max (int $v.autoscaling.minReplicas) (int .spec.replicas) }}
  {{- end }}
  {{- end }}
  revisionHistoryLimit: 5
  selector:
    matchLabels: {{- include "parley.selector" $of | nindent 6 }}
  strategy:
    type: RollingUpdate
    {{- toYaml (.strategy | default (dict "rollingUpdate" (dict "maxSurge" 1 "maxUnavailable" 0))) | nindent 4 }}
  template:
    metadata:
      labels: {{- include "parley.podLabels" $of | nindent 8 }}
        parley/metrics: "yes"
      annotations:
        kubectl.kubernetes.io/default-container: {{ .name }}
        {{- with .checksum }}
        checksum/secrets: {{ . }}
        {{- end }}
        {{- with $root.Values.podAnnotations }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    spec:
      serviceAccountName: {{ $full }}
      automountServiceAccountToken: false
      enableServiceLinks: false
      terminationGracePeriodSeconds: {{ .grace | default 20 }}
      securityContext:
        runAsNonRoot: true
        runAsUser: 65532
        runAsGroup: 65532
        seccompProfile: {type: RuntimeDefault}
      {{- include "parley.placement" $of | nindent 6 }}
      containers:
        - name: {{ .name }}
          image: {{ include "parley.image" (list $root.Values.image $root.Chart.AppVersion) }}
          imagePullPolicy: {{ $root.Values.image.pullPolicy }}
          command: [/usr/local/bin/{{ .name }}]
          securityContext: {{- include "parley.containerSecurity" $root | nindent 12 }}
          env:
            {{- range $k := keys $env | sortAlpha }}
            - {{ toJson (get $env $k) }}
            {{- end }}
            {{- with $v.extraEnv }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
          ports:
            {{- with .ports }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
            - {name: admin, containerPort: 9090}
          # Alive: the process answers. Ready: it has what its work needs, and is not draining. A store that is away makes nothing restart.
          startupProbe:
            httpGet: {path: /healthz, port: admin}
            periodSeconds: 2
            timeoutSeconds: 3
            failureThreshold: 30
          readinessProbe:
            httpGet: {path: /readyz, port: admin}
            periodSeconds: 3
            timeoutSeconds: 3
            failureThreshold: 2
          livenessProbe:
            httpGet: {path: /healthz, port: admin}
            periodSeconds: 10
            timeoutSeconds: 5
            failureThreshold: 6
          {{- with .lifecycle }}
          lifecycle: {{- toYaml . | nindent 12 }}
          {{- end }}
          resources: {{- toYaml $v.resources | nindent 12 }}
          {{- if or $ca $creds }}
          volumeMounts:
            {{- if $ca }}
            - {name: nats-ca, mountPath: /etc/parley/nats-ca, readOnly: true}
            {{- end }}
            {{- if $creds }}
            - {name: nats-creds, mountPath: /etc/parley/nats-creds, readOnly: true}
            {{- end }}
          {{- end }}
      {{- if or $ca $creds }}
      volumes:
        {{- if $ca }}
        - name: nats-ca
          secret: {secretName: {{ $ca }}, items: [{key: ca.crt, path: ca.crt}]}
        {{- end }}
        {{- if $creds }}
        - name: nats-creds
          secret: {secretName: {{ $creds }}, items: [{key: {{ .name }}.creds, path: {{ .name }}.creds}]}
        {{- end }}
      {{- end }}
{{- if $v.podDisruptionBudget.enabled }}
---
{{ include "parley.pdb" (list $root .name $v.podDisruptionBudget) }}
{{- end }}
{{- end }}

{{- define "parley.pdb" -}}
{{- $root := index . 0 -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ include "parley.fullname" $root }}-{{ index . 1 }}
  labels: {{- include "parley.labels" . | nindent 4 }}
spec:
  maxUnavailable: {{ (index . 2).maxUnavailable }}
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels: {{- include "parley.selector" . | nindent 6 }}
{{- end }}
