// SPDX-License-Identifier: Apache-2.0

//go:build tools

// Package tools pins etcd: its version and those of all its dependencies.
package tools

import _ "go.etcd.io/etcd/server/v3"
