// SPDX-License-Identifier: Apache-2.0

// Command peer is one node of a Spegel swarm, with a registry if it is told to: go-libp2p and its Kademlia DHT with the settings
// of Spegel v0.7 (TCP only, server mode, protocol /spegel/kad/1.0.0, provider validity derived from the interval).
//
// A test writes one request per line to standard input and reads one answer per line from standard output. The first
// line of output is the greeting {"id", "addrs"}; every answer repeats the "op" and has "result" or "error".
//
//	{"op":"advertise","keys":[K...]}              ADD_PROVIDER to the nearest peers before the answer
//	{"op":"find","keys":[K],"count":N}            peers as [{"ID","Addrs"}], exhaustive when count is 0
//	{"op":"records","keys":[K]}                   ids of the providers in the peer's own store
//	{"op":"ask","addrs":[MULTIADDR],"keys":[K]}   ids of the providers that one other peer names
//	{"op":"join","addrs":[MULTIADDR...]}          dial one bootstrap peer and wait until the routing table has it
//	{"op":"joinhttp","url":URL}                   the same with what an HTTP bootstrap server names
//	{"op":"ping","addrs":[MULTIADDR]}             PING on the DHT protocol
//	{"op":"peers"}                                ids in the routing table
//	{"op":"selfcheck","addrs":[MULTIADDR]}        FIND_NODE for the peer's own id, as the routing table does before it trusts a peer
//	{"op":"agreed","addrs":[MULTIADDR]}           what is agreed on with a peer that is connected or is dialled: {"security","muxer","early"}
//	{"op":"put","mediaType":T,"tag":NAME,"content":BASE64}   into the registry; gives the digest
//	{"op":"fault","keys":[KIND]}                  what the registry does wrong towards other nodes; "" for nothing
//
// The end of input ends the process.
package main

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/libp2p/go-libp2p"
	dht "github.com/libp2p/go-libp2p-kad-dht"
	pb "github.com/libp2p/go-libp2p-kad-dht/pb"
	"github.com/libp2p/go-libp2p-kad-dht/provider"
	"github.com/libp2p/go-libp2p-kad-dht/records"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	tls "github.com/libp2p/go-libp2p/p2p/security/tls"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	ma "github.com/multiformats/go-multiaddr"
	mh "github.com/multiformats/go-multihash"
)

type request struct {
	Op    string   `json:"op"`
	Keys  []string `json:"keys"`
	Addrs []string `json:"addrs"`
	URL   string   `json:"url"`
	Count int      `json:"count"`

	MediaType string `json:"mediaType"`
	Tag       string `json:"tag"`
	Content   []byte `json:"content"`
}

type answer struct {
	Op     string `json:"op"`
	Result any    `json:"result,omitempty"`
	Error  string `json:"error,omitempty"`
}

// member is one node: a libp2p host, the DHT on it, and what keeps its keys provided.
type member struct {
	host     host.Host
	dht      *dht.IpfsDHT
	provider *provider.SweepingProvider
	registry *registry
}

type memberOptions struct {
	listen   string
	identity string
	validity time.Duration
	// registry is the address of the HTTP registry, none when empty.
	registry string
	// security names the only security protocol; both when empty, TLS first.
	security string
	// wrap puts something before the provider store.
	wrap func(self peer.ID, store records.ProviderStore) records.ProviderStore
}

func main() {
	listen := flag.String("listen", "/ip4/127.0.0.1/tcp/0", "multiaddr to listen on")
	identity := flag.String("identity", "", "PKCS#8 PEM file of the Ed25519 key; a new key when empty")
	validity := flag.Duration("validity", 19*time.Minute, "life of a provider record")
	registry := flag.String("registry", "", "host:port of the HTTP registry; none when empty")
	security := flag.String("security", "", "noise or tls alone; both when empty, as Spegel")
	group := flag.String("group", "", "multiaddrs of a whole group of members under measurement, separated by commas")
	blind := flag.Bool("blind", false, "the first member of the group keeps no records of others")
	flag.Parse()
	err := error(nil)
	if *group != "" {
		err = runBench(strings.Split(*group, ","), *blind)
	} else {
		err = run(memberOptions{
			listen: *listen, identity: *identity, validity: *validity, registry: *registry, security: *security,
		})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(options memberOptions) error {
	m, err := newMember(options)
	if err != nil {
		return err
	}
	output := json.NewEncoder(os.Stdout)
	if err := output.Encode(map[string]any{"id": m.host.ID(), "addrs": m.host.Addrs()}); err != nil {
		return err
	}
	input := bufio.NewScanner(os.Stdin)
	input.Buffer(nil, 4<<20)
	for input.Scan() {
		var r request
		a := answer{}
		if err := json.Unmarshal(input.Bytes(), &r); err != nil {
			a.Error = err.Error()
		} else {
			a.Op = r.Op
			if a.Result, err = m.answer(r); err != nil {
				a.Error = err.Error()
			}
		}
		if err := output.Encode(a); err != nil {
			return err
		}
	}
	return errors.Join(input.Err(), m.close())
}

func (m *member) close() error {
	return errors.Join(m.provider.Close(), m.dht.Close(), m.host.Close())
}

func newMember(o memberOptions) (*member, error) {
	options := []libp2p.Option{
		libp2p.ListenAddrStrings(strings.Split(o.listen, ",")...),
		libp2p.NoTransports,
		libp2p.Transport(tcp.NewTCPTransport),
		libp2p.DisableIdentifyAddressDiscovery(),
	}
	if o.identity != "" {
		key, err := readKey(o.identity)
		if err != nil {
			return nil, err
		}
		options = append(options, libp2p.Identity(key))
	}
	switch o.security {
	case "noise":
		options = append(options, libp2p.Security(noise.ID, noise.New))
	case "tls":
		options = append(options, libp2p.Security(tls.ID, tls.New))
	}
	h, err := libp2p.New(options...)
	if err != nil {
		return nil, err
	}
	store, err := records.NewProviderManager(context.Background(), h.ID(), h.Peerstore(), dssync.MutexWrap(datastore.NewMapDatastore()),
		records.ProvideValidity(o.validity), records.CleanupInterval(o.validity/2))
	if err != nil {
		return nil, err
	}
	var wrapped records.ProviderStore = store
	if o.wrap != nil {
		wrapped = o.wrap(h.ID(), store)
	}
	d, err := dht.New(context.Background(), h,
		dht.Mode(dht.ModeServer), dht.ProtocolPrefix("/spegel"), dht.ProviderStore(wrapped))
	if err != nil {
		return nil, err
	}
	p, err := provider.New(
		provider.WithHost(h), provider.WithRouter(d), provider.WithMessageSender(d.MessageSender()),
		provider.WithSelfAddrs(func() []ma.Multiaddr { return h.Addrs() }),
		provider.WithReprovideInterval(15*time.Minute), provider.WithMaxReprovideDelay(2*time.Minute),
		provider.WithOfflineDelay(0), provider.WithConnectivityCheckOnlineInterval(30*time.Second),
		provider.WithAddLocalRecord(func(key mh.Multihash) error {
			return wrapped.AddProvider(context.Background(), key, peer.AddrInfo{ID: h.ID()})
		}))
	if err != nil {
		return nil, err
	}
	m := &member{host: h, dht: d, provider: p}
	if o.registry != "" {
		if m.registry, err = openRegistry(m, o.registry); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// readKey loads a key file in the way Spegel does.
func readKey(path string) (crypto.PrivKey, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(content)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, fmt.Errorf("%s has no PRIVATE KEY block", path)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	key, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s holds a %T", path, parsed)
	}
	return crypto.UnmarshalEd25519PrivateKey(key)
}

func (m *member) answer(r request) (any, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	switch r.Op {
	case "advertise":
		for _, text := range r.Keys {
			key, err := cidOf(text)
			if err != nil {
				return nil, err
			}
			if err := m.dht.Provide(ctx, key, true); err != nil {
				return nil, err
			}
		}
		return len(r.Keys), nil
	case "find":
		key, err := cidOf(r.Keys[0])
		if err != nil {
			return nil, err
		}
		found := []peer.AddrInfo{}
		for holder := range m.dht.FindProvidersAsync(ctx, key, r.Count) {
			found = append(found, holder)
		}
		return found, ctx.Err()
	case "records":
		key, err := cidOf(r.Keys[0])
		if err != nil {
			return nil, err
		}
		found, err := m.dht.ProviderStore().GetProviders(ctx, key.Hash())
		return idsOf(found), err
	case "ask":
		key, err := cidOf(r.Keys[0])
		if err != nil {
			return nil, err
		}
		id, err := m.connect(ctx, r.Addrs)
		if err != nil {
			return nil, err
		}
		messenger, err := pb.NewProtocolMessenger(m.dht.MessageSender())
		if err != nil {
			return nil, err
		}
		found, _, err := messenger.GetProviders(ctx, id, key.Hash())
		infos := []peer.AddrInfo{}
		for _, provider := range found {
			infos = append(infos, *provider)
		}
		return idsOf(infos), err
	case "cid":
		key, err := cidOf(r.Keys[0])
		return key.String(), err
	case "join":
		return m.join(ctx, r.Addrs)
	case "joinhttp":
		return m.joinHTTP(ctx, r.URL)
	case "ping":
		id, err := m.connect(ctx, r.Addrs)
		if err != nil {
			return nil, err
		}
		return id, m.dht.Ping(ctx, id)
	case "selfcheck":
		id, err := m.connect(ctx, r.Addrs)
		if err != nil {
			return nil, err
		}
		messenger, err := pb.NewProtocolMessenger(m.dht.MessageSender())
		if err != nil {
			return nil, err
		}
		named, err := messenger.GetClosestPeers(ctx, id, id)
		return len(named), err
	case "agreed":
		id, err := m.connect(ctx, r.Addrs)
		if err != nil {
			return nil, err
		}
		state := m.host.Network().ConnsToPeer(id)[0].ConnState()
		return map[string]any{
			"security": state.Security, "muxer": state.StreamMultiplexer, "early": state.UsedEarlyMuxerNegotiation,
		}, nil
	case "put":
		return m.registry.put(ctx, r.MediaType, r.Tag, r.Content)
	case "fault":
		m.registry.mu.Lock()
		defer m.registry.mu.Unlock()
		m.registry.fault = r.Keys[0]
		return r.Keys[0], nil
	case "peers":
		return m.dht.RoutingTable().ListPeers(), nil
	}
	return nil, fmt.Errorf("unknown op %q", r.Op)
}

func idsOf(infos []peer.AddrInfo) []peer.ID {
	ids := []peer.ID{}
	for _, info := range infos {
		ids = append(ids, info.ID)
	}
	return ids
}

func cidOf(text string) (cid.Cid, error) {
	hash, err := mh.Sum([]byte(text), mh.SHA2_256, -1)
	return cid.NewCidV1(cid.Raw, hash), err
}

// joinHTTP reads a list of bootstrap peers as Spegel does: a JSON array, the id may be empty.
func (m *member) joinHTTP(ctx context.Context, url string) (any, error) {
	call, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(call)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, errors.New(response.Status)
	}
	var list []struct {
		ID    string
		Addrs []string
	}
	if err := json.NewDecoder(response.Body).Decode(&list); err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, errors.New("the list is empty")
	}
	addrs := list[0].Addrs
	if list[0].ID != "" {
		for i := range addrs {
			addrs[i] += "/p2p/" + list[0].ID
		}
	}
	return m.join(ctx, addrs)
}

// join connects and waits until the peer passed the routing table's check.
func (m *member) join(ctx context.Context, addrs []string) (peer.ID, error) {
	id, err := m.connect(ctx, addrs)
	if err != nil {
		return "", err
	}
	for m.dht.RoutingTable().Find(id) == "" {
		select {
		case <-ctx.Done():
			return id, fmt.Errorf("%s did not enter the routing table: %w", id, ctx.Err())
		case <-time.After(time.Millisecond):
		}
	}
	return id, <-m.dht.RefreshRoutingTable()
}

// connect dials a peer. Without an id in the address it dials under a made-up one first: the handshake fails and
// tells the real one, which is then dialled.
func (m *member) connect(ctx context.Context, addrs []string) (peer.ID, error) {
	target := peer.AddrInfo{}
	for _, text := range addrs {
		addr, err := ma.NewMultiaddr(text)
		if err != nil {
			return "", err
		}
		transport, id := peer.SplitAddr(addr)
		target.ID = id
		target.Addrs = append(target.Addrs, transport)
	}
	if target.ID == "" {
		_, madeUp, err := crypto.GenerateEd25519Key(nil)
		if err != nil {
			return "", err
		}
		if target.ID, err = peer.IDFromPublicKey(madeUp); err != nil {
			return "", err
		}
		err = m.host.Connect(ctx, target)
		var mismatch sec.ErrPeerIDMismatch
		if !errors.As(err, &mismatch) {
			return "", fmt.Errorf("no peer id was learnt: %w", err)
		}
		m.host.Peerstore().ClearAddrs(target.ID)
		target.ID = mismatch.Actual
	}
	return target.ID, m.host.Connect(ctx, target)
}
