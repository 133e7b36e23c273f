// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p-kad-dht/records"
	"github.com/libp2p/go-libp2p/core/peer"
	mh "github.com/multiformats/go-multihash"
)

// benchRequest is one line of standard input of a group of members under measurement; see test/bench/swarm-group.ts.
type benchRequest struct {
	Op    string   `json:"op"`
	Node  int      `json:"node"`
	Keys  []string `json:"keys"`
	Addrs []string `json:"addrs"`
}

// countingStore counts the records of other peers, each once, and can be told to keep none.
type countingStore struct {
	records.ProviderStore
	self  peer.ID
	blind bool
	mu    sync.Mutex
	known map[string]struct{}
	count *atomic.Int64
}

func (s *countingStore) AddProvider(ctx context.Context, key []byte, provider peer.AddrInfo) error {
	if provider.ID == s.self {
		return s.ProviderStore.AddProvider(ctx, key, provider)
	}
	if s.blind {
		return nil
	}
	record := string(key) + string(provider.ID)
	s.mu.Lock()
	if _, known := s.known[record]; !known {
		s.known[record] = struct{}{}
		s.count.Add(1)
	}
	s.mu.Unlock()
	return s.ProviderStore.AddProvider(ctx, key, provider)
}

// runBench serves a group of members, one per listening address; with blind the first keeps no records of others.
func runBench(listen []string, blind bool) error {
	received := &atomic.Int64{}
	members := make([]*member, len(listen))
	addrs := make([]string, len(listen))
	for i, address := range listen {
		m, err := newMember(memberOptions{
			listen:   address,
			validity: 19 * time.Minute,
			wrap: func(self peer.ID, store records.ProviderStore) records.ProviderStore {
				return &countingStore{store, self, blind && i == 0, sync.Mutex{}, map[string]struct{}{}, received}
			},
		})
		if err != nil {
			return err
		}
		members[i] = m
		addrs[i] = fmt.Sprintf("%s/p2p/%s", m.host.Addrs()[0], m.host.ID())
	}
	output := json.NewEncoder(os.Stdout)
	if err := output.Encode(map[string]any{"addrs": addrs}); err != nil {
		return err
	}
	input := bufio.NewScanner(os.Stdin)
	input.Buffer(nil, 4<<20)
	for input.Scan() {
		var r benchRequest
		a := answer{}
		if err := json.Unmarshal(input.Bytes(), &r); err != nil {
			a.Error = err.Error()
		} else {
			a.Op = r.Op
			if a.Result, err = answerBench(members, received, r); err != nil {
				a.Error = err.Error()
			}
		}
		if err := output.Encode(a); err != nil {
			return err
		}
	}
	closing := []error{input.Err()}
	for _, m := range members {
		closing = append(closing, m.close())
	}
	return errors.Join(closing...)
}

func answerBench(members []*member, received *atomic.Int64, r benchRequest) (any, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	m := members[r.Node]
	switch r.Op {
	case "join":
		var joining sync.WaitGroup
		failures := make([]error, len(members))
		for i, each := range members {
			joining.Go(func() {
				if strings.HasSuffix(r.Addrs[0], each.host.ID().String()) {
					return // the entry itself is dialled by the others
				}
				if _, err := each.join(ctx, r.Addrs); err != nil {
					failures[i] = err
				}
			})
		}
		joining.Wait()
		return len(members), errors.Join(failures...)
	case "refresh":
		for _, each := range members {
			<-each.dht.RefreshRoutingTable()
		}
		return len(members), nil
	case "peers":
		counts := []int{}
		for _, each := range members {
			counts = append(counts, each.dht.RoutingTable().Size())
		}
		return counts, nil
	case "records":
		return received.Load(), nil
	case "provide":
		hashes := []mh.Multihash{}
		for _, text := range r.Keys {
			key, err := cidOf(text)
			if err != nil {
				return nil, err
			}
			hashes = append(hashes, key.Hash())
		}
		started := epochMs()
		for _, hash := range hashes {
			if err := m.dht.ProviderStore().AddProvider(ctx, hash, peer.AddrInfo{ID: m.host.ID()}); err != nil {
				return nil, err
			}
		}
		return started, m.provider.StartProviding(false, hashes...)
	case "find":
		return each(r.Keys, func(key string) (*float64, error) { return m.firstHit(ctx, key) })
	case "miss":
		return each(r.Keys, func(key string) (*float64, error) { return m.wholeSearch(ctx, key) })
	case "await":
		for {
			hit, err := m.firstHit(ctx, r.Keys[0])
			if err != nil || hit != nil {
				return epochMs(), err
			}
			select {
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-time.After(2 * time.Millisecond):
			}
		}
	}
	return nil, fmt.Errorf("unknown op %q", r.Op)
}

func each(keys []string, measure func(string) (*float64, error)) ([]*float64, error) {
	measured := []*float64{}
	for _, key := range keys {
		ms, err := measure(key)
		if err != nil {
			return nil, err
		}
		measured = append(measured, ms)
	}
	return measured, nil
}

// firstHit is the time to the first provider, nil when there is none.
func (m *member) firstHit(ctx context.Context, text string) (*float64, error) {
	key, err := cidOf(text)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	began := time.Now()
	for provider := range m.dht.FindProvidersAsync(ctx, key, 3) {
		if provider.ID != m.host.ID() {
			return since(began), nil
		}
	}
	return nil, nil
}

// wholeSearch is the time until the search for a key that nobody has is over.
func (m *member) wholeSearch(ctx context.Context, text string) (*float64, error) {
	key, err := cidOf(text)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	for range m.dht.FindProvidersAsync(ctx, key, 3) {
		return nil, fmt.Errorf("%s has a provider", text)
	}
	return since(began), nil
}

func since(began time.Time) *float64 {
	ms := float64(time.Since(began).Nanoseconds()) / 1e6
	return &ms
}

func epochMs() float64 {
	return float64(time.Now().UnixMicro()) / 1000
}
