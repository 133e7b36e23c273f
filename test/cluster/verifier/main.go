// SPDX-License-Identifier: Apache-2.0

// Judges certificate chains as Go programs do: reads chains as a JSON list from its input and writes a list of what
// is wrong with each, empty for nothing.
package main

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"time"
)

type chain struct {
	Authorities string `json:"authorities"`
	Leaf        string `json:"leaf"`
	Usage       string `json:"usage"` // server or client
	Host        string `json:"host"`  // DNS name or IP address; empty: not judged
	At          int64  `json:"at"`    // seconds since 1970
}

var usages = map[string]x509.ExtKeyUsage{
	"server": x509.ExtKeyUsageServerAuth,
	"client": x509.ExtKeyUsageClientAuth,
}

func verify(c chain) error {
	usage, known := usages[c.Usage]
	if !known {
		return fmt.Errorf("usage %q is not known", c.Usage)
	}
	roots := x509.NewCertPool()
	for rest := []byte(c.Authorities); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		authority, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return fmt.Errorf("authority: %w", err)
		}
		roots.AddCert(authority)
	}
	block, _ := pem.Decode([]byte(c.Leaf))
	if block == nil {
		return fmt.Errorf("the leaf is not PEM")
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return fmt.Errorf("leaf: %w", err)
	}
	_, err = leaf.Verify(x509.VerifyOptions{
		Roots:       roots,
		DNSName:     c.Host,
		KeyUsages:   []x509.ExtKeyUsage{usage},
		CurrentTime: time.Unix(c.At, 0),
	})
	return err
}

func main() {
	var chains []chain
	if err := json.NewDecoder(os.Stdin).Decode(&chains); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	problems := make([]string, len(chains))
	for i, c := range chains {
		if err := verify(c); err != nil {
			problems[i] = err.Error()
		}
	}
	if err := json.NewEncoder(os.Stdout).Encode(problems); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
