// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

const mirroredHeader = "X-Spegel-Mirrored"

var acceptedManifests = []string{
	"application/vnd.oci.image.manifest.v1+json",
	"application/vnd.docker.distribution.manifest.v2+json",
	"application/vnd.oci.image.index.v1+json",
	"application/vnd.docker.distribution.manifest.list.v2+json",
}

var (
	pathForm   = regexp.MustCompile(`^/v2/(.+)/(manifests|blobs)/([^/]+)$`)
	digestForm = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
	rangeForm  = regexp.MustCompile(`^bytes=(\d*)-(\d*)$`)
)

// registry serves content from memory with the headers of Spegel's registry, and what it lacks from other nodes, asked
// and judged as Spegel does.
type registry struct {
	member *member
	// port is the registry's own, which it expects on all other nodes.
	port string
	// client knows no proxy and reads no coding, as Spegel's.
	client *http.Client

	mu    sync.Mutex
	blobs map[string]content
	tags  map[string]string
	// fault makes the answers to other nodes wrong in one way.
	fault string
}

type content struct {
	mediaType string
	bytes     []byte
}

func (c content) isManifest() bool {
	for _, mediaType := range acceptedManifests {
		if c.mediaType == mediaType {
			return true
		}
	}
	return false
}

func openRegistry(m *member, address string) (*registry, error) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	_, port, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		return nil, err
	}
	r := &registry{
		member: m,
		port:   port,
		client: &http.Client{Transport: &http.Transport{}},
		blobs:  map[string]content{},
		tags:   map[string]string{},
	}
	go func() { _ = http.Serve(listener, r) }()
	return r, nil
}

// put stores content and provides its digest and, if it has one, its full tag name.
func (r *registry) put(ctx context.Context, mediaType, tag string, bytes []byte) (string, error) {
	sum := sha256.Sum256(bytes)
	digest := "sha256:" + hex.EncodeToString(sum[:])
	keys := []string{digest}
	r.mu.Lock()
	r.blobs[digest] = content{mediaType, bytes}
	if tag != "" {
		r.tags[tag] = digest
		keys = append(keys, tag)
	}
	r.mu.Unlock()
	for _, text := range keys {
		key, err := cidOf(text)
		if err != nil {
			return "", err
		}
		if err := r.member.dht.Provide(ctx, key, true); err != nil {
			return "", err
		}
	}
	return digest, nil
}

type target struct {
	repository, kind, reference, namespace string
}

// key is what the content is provided under.
func (t target) key() string {
	if digestForm.MatchString(t.reference) {
		return t.reference
	}
	return t.namespace + "/" + t.repository + ":" + t.reference
}

func (r *registry) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	if request.URL.Path == "/v2/" {
		return
	}
	match := pathForm.FindStringSubmatch(request.URL.Path)
	namespace := request.URL.Query().Get("ns")
	if match == nil || namespace == "" || (request.Method != http.MethodGet && request.Method != http.MethodHead) {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	t := target{match[1], match[2], match[3], namespace}
	digest, found, isLocal := r.find(t)
	isMirrored := request.Header.Get(mirroredHeader) == "true"
	switch {
	case isLocal:
		r.serve(w, request, t, digest, found, isMirrored)
	case isMirrored:
		http.Error(w, fmt.Sprintf(`{"errors":[{"code":"%s_UNKNOWN"}]}`, strings.ToUpper(t.kind[:len(t.kind)-1])), http.StatusNotFound)
	default:
		r.mirror(w, request, t)
	}
}

func (r *registry) find(t target) (string, content, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	digest := t.reference
	if !digestForm.MatchString(digest) {
		digest = r.tags[t.key()]
	}
	found, isKnown := r.blobs[digest]
	return digest, found, isKnown && found.isManifest() == (t.kind == "manifests")
}

func (r *registry) serve(w http.ResponseWriter, request *http.Request, t target, digest string, c content, isMirrored bool) {
	r.mu.Lock()
	fault := r.fault
	r.mu.Unlock()
	if !isMirrored {
		fault = ""
	}
	header := w.Header()
	header.Set("Content-Type", c.mediaType)
	header.Set("Docker-Content-Digest", digest)
	header.Set("OCI-Namespace", t.namespace)
	start, end, status := 0, len(c.bytes)-1, http.StatusOK
	if t.kind == "blobs" {
		header.Set("Accept-Ranges", "bytes")
		if text := request.Header.Get("Range"); text != "" && fault != "ignores range" {
			var ok bool
			if start, end, ok = parseRange(text, len(c.bytes)); !ok {
				w.WriteHeader(http.StatusBadRequest)
				return
			}
			status = http.StatusPartialContent
			header.Set("Content-Type", "application/octet-stream")
			header.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", start, end, len(c.bytes)))
		}
	}
	header.Set("Content-Length", strconv.Itoa(end-start+1))
	body := c.bytes[start : end+1]
	switch fault {
	case "no length":
		header.Del("Content-Length")
		header.Set("Transfer-Encoding", "chunked")
	case "no digest":
		header.Del("Docker-Content-Digest")
	case "wrong digest":
		header.Set("Docker-Content-Digest", "sha256:"+strings.Repeat("0", 64))
	case "no type":
		header["Content-Type"] = nil
	case "wrong bytes":
		body = append([]byte{}, body...)
		body[len(body)/2] ^= 0xff
	case "cut":
		body = body[:len(body)/2]
	}
	w.WriteHeader(status)
	if request.Method == http.MethodGet {
		_, _ = w.Write(body)
	}
}

func parseRange(text string, size int) (int, int, bool) {
	match := rangeForm.FindStringSubmatch(text)
	if match == nil || (match[1] == "" && match[2] == "") {
		return 0, 0, false
	}
	first, firstErr := strconv.Atoi(match[1])
	last, lastErr := strconv.Atoi(match[2])
	switch {
	case firstErr != nil:
		first, last = max(size-last, 0), size-1
	case lastErr != nil || last >= size:
		last = size - 1
	}
	return first, last, first <= last
}

// mirror asks up to three providers, one after the other, and passes on the first good answer.
func (r *registry) mirror(w http.ResponseWriter, request *http.Request, t target) {
	reasons, err := r.tryProviders(w, request, t)
	if err != nil {
		http.Error(w, errors.Join(append(reasons, err)...).Error(), http.StatusNotFound)
	}
}

func (r *registry) tryProviders(w http.ResponseWriter, request *http.Request, t target) ([]error, error) {
	ctx, cancel := context.WithTimeout(request.Context(), 10*time.Second)
	defer cancel()
	key, err := cidOf(t.key())
	if err != nil {
		return nil, err
	}
	reasons := []error{}
	for provider := range r.member.dht.FindProvidersAsync(ctx, key, 3) {
		if provider.ID == r.member.host.ID() {
			continue
		}
		ip, err := addressOf(provider)
		if err != nil {
			reasons = append(reasons, err)
			continue
		}
		if err := r.fetch(ctx, w, request, t, ip); err != nil {
			reasons = append(reasons, err)
			continue
		}
		return reasons, nil
	}
	return reasons, errors.New("no provider gave a good answer")
}

// addressOf drops a provider as soon as one of its addresses is not an IP address, as Spegel does.
func addressOf(provider peer.AddrInfo) (string, error) {
	ip := ""
	for _, addr := range provider.Addrs {
		first, _ := ma.SplitFirst(addr)
		if first == nil || (first.Protocol().Code != ma.P_IP4 && first.Protocol().Code != ma.P_IP6) {
			return "", fmt.Errorf("%s is not an IP address", addr)
		}
		if ip == "" {
			ip = first.Value()
		}
	}
	if ip == "" {
		return "", fmt.Errorf("%s has no address", provider.ID)
	}
	return ip, nil
}

// fetch makes the request that Spegel makes and demands of the answer what it demands.
func (r *registry) fetch(ctx context.Context, w http.ResponseWriter, request *http.Request, t target, ip string) error {
	address := url.URL{
		Scheme: "http", Host: net.JoinHostPort(ip, r.port),
		Path: request.URL.Path, RawQuery: "ns=" + t.namespace,
	}
	call, err := http.NewRequestWithContext(ctx, request.Method, address.String(), nil)
	if err != nil {
		return err
	}
	call.Header.Set(mirroredHeader, "true")
	call.Header.Set("User-Agent", "spegel")
	for _, mediaType := range acceptedManifests {
		call.Header.Add("Accept", mediaType)
	}
	call.Header.Set("Authorization", "Basic Og==")
	if text := request.Header.Get("Range"); text != "" {
		call.Header.Set("Range", text)
	}
	response, err := r.client.Do(call)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if err := demand(t, response); err != nil {
		return err
	}
	for _, name := range []string{"Content-Type", "Content-Length", "Content-Range", "Docker-Content-Digest", "Accept-Ranges"} {
		if value := response.Header.Get(name); value != "" {
			w.Header().Set(name, value)
		}
	}
	w.WriteHeader(response.StatusCode)
	_, err = io.Copy(w, response.Body)
	return err
}

func demand(t target, response *http.Response) error {
	if response.StatusCode != http.StatusOK && response.StatusCode != http.StatusPartialContent {
		return fmt.Errorf("status %d", response.StatusCode)
	}
	if response.Uncompressed {
		return errors.New("a content coding")
	}
	if t.kind == "manifests" {
		if response.Header.Get("Content-Type") == "" {
			return errors.New("no Content-Type")
		}
		if !digestForm.MatchString(response.Header.Get("Docker-Content-Digest")) {
			return errors.New("no valid Docker-Content-Digest")
		}
	} else if text := response.Header.Get("Content-Range"); text != "" {
		_, total, isRange := strings.Cut(text, "/")
		if _, err := strconv.Atoi(total); !isRange || !strings.HasPrefix(text, "bytes") || err != nil {
			return fmt.Errorf("Content-Range %q", text)
		}
		return nil
	}
	if _, err := strconv.Atoi(response.Header.Get("Content-Length")); err != nil {
		return errors.New("no numeric Content-Length")
	}
	return nil
}
