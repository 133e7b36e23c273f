// SPDX-License-Identifier: Apache-2.0

// Command go-webhook is what an extension of Gardener written in Go does with an OperatingSystemConfig, for the bench to
// measure beside ours: controller-runtime decodes the review, the object is decoded into its type, changed, encoded, and
// compared with the original for a patch. It reads the additions as a list of files and units from -additions (JSON),
// asks nobody anything, and prints its address once it listens.
package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"

	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"
)

// The fields that are read are typed, the rest is kept as it came: cheaper than the whole type of Gardener.
type osc struct {
	APIVersion string          `json:"apiVersion"`
	Kind       string          `json:"kind"`
	Metadata   json.RawMessage `json:"metadata"`
	Spec       spec            `json:"spec"`
}

type spec struct {
	Type      string          `json:"type"`
	Purpose   string          `json:"purpose"`
	Units     []unit          `json:"units,omitempty"`
	Files     []file          `json:"files,omitempty"`
	CRIConfig json.RawMessage `json:"criConfig,omitempty"`
}

type unit struct {
	Name      string          `json:"name"`
	Command   *string         `json:"command,omitempty"`
	Enable    *bool           `json:"enable,omitempty"`
	Content   *string         `json:"content,omitempty"`
	DropIns   json.RawMessage `json:"dropIns,omitempty"`
	FilePaths []string        `json:"filePaths,omitempty"`
}

type file struct {
	Path        string  `json:"path"`
	Permissions *uint32 `json:"permissions,omitempty"`
	Content     content `json:"content"`
}

type content struct {
	SecretRef json.RawMessage `json:"secretRef,omitempty"`
	Inline    *inline         `json:"inline,omitempty"`
	ImageRef  json.RawMessage `json:"imageRef,omitempty"`
}

type inline struct {
	Encoding string `json:"encoding"`
	Data     string `json:"data"`
}

type additions struct {
	Files []file `json:"files"`
	Units []unit `json:"units"`
}

func main() {
	certificate := flag.String("cert", "", "PEM file of the server's certificate")
	key := flag.String("key", "", "PEM file of its key")
	path := flag.String("additions", "", "JSON file of what every object gets")
	flag.Parse()
	var extra additions
	text, err := os.ReadFile(*path)
	if err == nil {
		err = json.Unmarshal(text, &extra)
	}
	if err != nil {
		log.Fatalf("additions: %v", err)
	}
	webhook := &admission.Webhook{Handler: admission.HandlerFunc(func(_ context.Context, request admission.Request) admission.Response {
		return answer(request, extra)
	})}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(listener.Addr())
	server := &http.Server{Handler: webhook, TLSConfig: &tls.Config{MinVersion: tls.VersionTLS13}}
	log.Fatal(server.ServeTLS(listener, *certificate, *key))
}

func answer(request admission.Request, extra additions) admission.Response {
	var object osc
	if err := json.Unmarshal(request.Object.Raw, &object); err != nil {
		return admission.Errored(http.StatusBadRequest, err)
	}
	object.Spec.Files = append(object.Spec.Files, extra.Files...)
	object.Spec.Units = append(object.Spec.Units, extra.Units...)
	changed, err := json.Marshal(object)
	if err != nil {
		return admission.Errored(http.StatusInternalServerError, err)
	}
	return admission.PatchResponseFromRaw(request.Object.Raw, changed)
}
