package resolver

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/tangle-network/microvm-runtime/egress"
	"github.com/tangle-network/microvm-runtime/internal/quota"
)

// fixed is an upstream that answers everything with one message, whatever it may be.
type fixed struct{ reply []byte }

func (f fixed) Exchange(_ context.Context, query *dns.Msg) (*dns.Msg, error) {
	reply := new(dns.Msg)
	if err := reply.Unpack(f.reply); err != nil {
		return nil, err
	}
	return reply, nil
}

// FuzzServer feeds hostile queries, and hostile answers to them. Whatever comes, what is granted is public, and what is answered was granted.
func FuzzServer(f *testing.F) {
	query, _ := new(dns.Msg).SetQuestion("a.example.", dns.TypeA).SetEdns0(1232, true).Pack()
	reply := new(dns.Msg).SetQuestion("a.example.", dns.TypeA)
	for _, text := range []string{"a.example. 60 CNAME b.example.", "b.example. 60 A 1.1.1.1", "b.example. 60 A 10.0.0.1"} {
		record, _ := dns.NewRR(text)
		reply.Answer = append(reply.Answer, record)
	}
	answer, _ := reply.Pack()
	f.Add(query, answer)
	f.Add(query[:12], answer)
	f.Add([]byte("0123456789ab"), []byte{})
	any, err := egress.ParseRule("*")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, query, answer []byte) {
		granted := map[netip.Addr]bool{}
		policy := &Policy{Rules: []Rule{{1, any}}, Grant: func(_ uint32, addr netip.Addr, ttl time.Duration) error {
			granted[addr] = true
			return nil
		}}
		options := Options{Upstream: fixed{answer}}.withDefaults()
		s := &Server{options: options, cache: newCache(options.Upstream), machines: newMachines(options.Limits), complain: quota.New(1, 1), ctx: t.Context()}
		reply, size := s.answer(query, netip.MustParseAddr("10.0.0.4"), policy)
		for addr := range granted {
			if egress.IsReserved(addr) {
				t.Fatalf("%s was granted", addr)
			}
		}
		if reply == nil {
			return
		}
		for _, record := range reply.Answer {
			if a, ok := record.(*dns.A); ok && reply.Question[0].Qtype == dns.TypeA {
				if addr, _ := netip.AddrFromSlice(a.A); !granted[addr.Unmap()] {
					t.Fatalf("%s was answered and not granted", a.A)
				}
			}
		}
		reply.Truncate(size)
		if packed, err := reply.Pack(); err == nil && len(packed) > maxAnswer {
			t.Fatalf("an answer of %d bytes", len(packed))
		}
	})
}
