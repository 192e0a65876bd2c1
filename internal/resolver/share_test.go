package resolver_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/tangle-network/microvm-runtime/internal/resolver"
)

// TestMachinesCanNotTakeAnothersShare: while upstream answers nobody, and others take all that there is, a machine's first queries and connections find a place.
func TestMachinesCanNotTakeAnothersShare(t *testing.T) {
	const greedy, share, pool = 10, 1, 4
	w := startWorld(t, resolver.Options{Limits: resolver.Limits{
		InFlight: 4, Share: share, TotalInFlight: pool, Connections: 4, ConnectionShare: share, TotalConnections: pool,
	}})
	hold := make(chan struct{})
	release := sync.OnceFunc(func() { close(hold) })
	defer release()
	w.upstream.wait(hold)
	for n := range greedy {
		source := fmt.Sprintf("127.0.1.%d", 10+n)
		w.allow(t, source, "*.example")
		conn := w.dial(t, "udp", source)
		defer conn.Close()
		for i := range 6 {
			if err := conn.WriteMsg(new(dns.Msg).SetQuestion(fmt.Sprintf("n%d-%d.example.", n, i), dns.TypeA)); err != nil {
				t.Fatal(err)
			}
		}
	}
	w.allow(t, "127.0.1.1", "none.example")
	if got := say(w.ask(t, "127.0.1.1", "other.example", dns.TypeA)); got != "REFUSED" {
		t.Errorf("the neighbour: %s", got)
	}
	for deadline := time.Now().Add(patience); len(w.upstream.questions()) < pool+greedy*share && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	if asked := len(w.upstream.questions()); asked != pool+greedy*share {
		t.Errorf("upstream was asked %d questions, there are %d places for all and %d for each", asked, pool, share)
	}
	release()

	served := 0
	for n := range greedy {
		for range 3 {
			conn := w.dial(t, "tcp", fmt.Sprintf("127.0.1.%d", 10+n))
			defer conn.Close()
			conn.WriteMsg(new(dns.Msg).SetQuestion("other.org.", dns.TypeA))
			if _, err := conn.ReadMsg(); err == nil { // and the connection stays
				served++
			}
		}
	}
	if served != pool+greedy*share {
		t.Errorf("%d connections are served", served)
	}
	query := new(dns.Msg).SetQuestion("other.example.", dns.TypeA)
	if got := say(w.exchange(t, "tcp", "127.0.1.1", query)); got != "REFUSED" {
		t.Errorf("the neighbour by TCP: %s", got)
	}
}
