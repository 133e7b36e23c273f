{{/* SPDX-License-Identifier: Apache-2.0 */}}

{{- define "name" -}}
gardener-extension-registry-spegel-admission
{{- end }}

{{- define "selectorLabels" -}}
app.kubernetes.io/name: {{ include "name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end }}

{{/* What the programs of the webhook listen on. */}}
{{- define "ports" -}}
- name: webhook
  containerPort: 10250
  protocol: TCP
- name: metrics
  containerPort: 8080
  protocol: TCP
- name: health
  containerPort: 8081
  protocol: TCP
{{- end }}

{{- define "probes" -}}
livenessProbe:
  httpGet:
    path: /healthz
    port: health
    scheme: HTTP
  initialDelaySeconds: 10
  periodSeconds: 10
  failureThreshold: 3
readinessProbe:
  httpGet:
    path: /readyz
    port: health
    scheme: HTTP
  periodSeconds: 5
  failureThreshold: 3
{{- end }}

{{/* The Pod Security Standard "restricted". */}}
{{- define "podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop:
  - ALL
{{- end }}

{{/* Two listeners cannot share a port; the programs would refuse every Shoot. */}}
{{- define "portArguments" -}}
{{- $ports := list (int .Values.defaults.registryPort) (int .Values.defaults.routerPort) (int .Values.defaults.metricsPort) -}}
{{- if ne (len ($ports | uniq)) 3 -}}
{{- fail "defaults.registryPort, defaults.routerPort and defaults.metricsPort must differ" -}}
{{- end -}}
- --registry-port={{ int .Values.defaults.registryPort }}
- --router-port={{ int .Values.defaults.routerPort }}
- --metrics-port={{ int .Values.defaults.metricsPort }}
{{- end }}

{{/*
Whether there may be objects of the Prometheus operator. gardener-operator, which alone sets runtimeCluster, installs
their kinds, but renders without telling which kinds the cluster has.
*/}}
{{- define "isMonitored" -}}
{{- $isOperated := hasKey (.Values.gardener | default dict) "runtimeCluster" -}}
{{- $hasKinds := .Capabilities.APIVersions.Has "monitoring.coreos.com/v1/ServiceMonitor" -}}
{{- if and .Values.metrics.enableScraping (or $isOperated $hasKinds) -}}
true
{{- end -}}
{{- end }}
