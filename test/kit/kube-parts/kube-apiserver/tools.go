// SPDX-License-Identifier: Apache-2.0

//go:build tools

// Package tools pins kube-apiserver: its version and those of all its dependencies.
package tools

import _ "k8s.io/kubernetes/cmd/kube-apiserver"
