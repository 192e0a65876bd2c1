package resolver_test

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"

	"github.com/tangle-network/microvm-runtime/internal/resolver"
)

// exchangeFunc is an upstream without sockets.
type exchangeFunc func(*dns.Msg) (*dns.Msg, error)

func (f exchangeFunc) Exchange(_ context.Context, query *dns.Msg) (*dns.Msg, error) { return f(query) }

func question(name string) *dns.Msg { return new(dns.Msg).SetQuestion(name, dns.TypeA) }

func TestTheHostsServersAreAskedAsTheyAre(t *testing.T) {
	first, port := startUpstream(t, "127.0.0.2", "0")
	second, _ := startUpstream(t, "127.0.0.3", port)
	first.set("good.example A", "60 A 1.1.1.1")
	second.set("good.example A", "60 A 2.2.2.2")
	path := resolvConf(t, "127.0.0.2", "127.0.0.3")
	system := resolver.NewSystemAt(path, port)
	expect := func(want string) {
		t.Helper()
		reply, err := system.Exchange(t.Context(), question("good.example."))
		if err != nil {
			t.Fatal(err)
		}
		if say(reply) != want {
			t.Errorf("%s, want %s", say(reply), want)
		}
	}
	expect("NOERROR good.example.=1.1.1.1")
	// A server that fails is passed over, and the one that answered is asked first from then on.
	first.say("good.example", dns.RcodeServerFailure)
	expect("NOERROR good.example.=2.2.2.2")
	before := len(first.questions())
	expect("NOERROR good.example.=2.2.2.2")
	if after := len(first.questions()); after != before {
		t.Errorf("the server that fails was asked again, %d times", after-before)
	}
	// One that nobody listens at is, too.
	writeResolvConf(t, path, "127.0.0.4", "127.0.0.3")
	expect("NOERROR good.example.=2.2.2.2")
	// The file is followed.
	first.say("good.example", dns.RcodeSuccess)
	writeResolvConf(t, path, "127.0.0.2")
	expect("NOERROR good.example.=1.1.1.1")
	// When all fail, what they say is passed on.
	first.say("good.example", dns.RcodeRefused)
	second.say("good.example", dns.RcodeServerFailure)
	writeResolvConf(t, path, "127.0.0.2", "127.0.0.3")
	reply, err := system.Exchange(t.Context(), question("good.example."))
	if err != nil || reply.Rcode == dns.RcodeSuccess {
		t.Errorf("%v, %v", reply, err)
	}
}

func TestFixedServersAreAskedInPlaceOfTheHosts(t *testing.T) {
	first, port := startUpstream(t, "127.0.0.2", "0")
	second, _ := startUpstream(t, "127.0.0.3", port)
	first.set("good.example A", "60 A 1.1.1.1")
	second.set("good.example A", "60 A 2.2.2.2")
	system := resolver.NewFixed(netip.MustParseAddrPort("127.0.0.2:"+port), netip.MustParseAddrPort("127.0.0.3:"+port))
	for _, step := range []struct {
		says int
		want string
	}{{dns.RcodeSuccess, "NOERROR good.example.=1.1.1.1"}, {dns.RcodeServerFailure, "NOERROR good.example.=2.2.2.2"}} {
		first.say("good.example", step.says)
		if reply, err := system.Exchange(t.Context(), question("good.example.")); err != nil || say(reply) != step.want {
			t.Errorf("%v, %v, want %s", reply, err, step.want)
		}
	}
}

func TestHostsWithoutServers(t *testing.T) {
	for path, want := range map[string]string{resolvConf(t): "there is none in", filepath.Join(t.TempDir(), "none"): "no such file", resolvConf(t, "127.0.0.9"): "ask 127.0.0.9"} {
		_, err := resolver.NewSystemAt(path, "1").Exchange(t.Context(), question("good.example."))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

func TestTheCacheIsBounded(t *testing.T) {
	var mu sync.Mutex
	asked := map[string]int{}
	w := startWorld(t, resolver.Options{
		Upstream: exchangeFunc(func(query *dns.Msg) (*dns.Msg, error) {
			mu.Lock()
			asked[query.Question[0].Name]++
			mu.Unlock()
			reply := new(dns.Msg).SetReply(query)
			reply.Answer = []dns.RR{mustRR(query.Question[0].Name + " 3600 A 1.1.1.1")}
			return reply, nil
		}),
		Limits: resolver.Limits{PerSecond: 1e6, Burst: 1e6},
	})
	w.allow(t, "127.0.1.1", "*.example")
	conn := w.dial(t, "udp", "127.0.1.1")
	defer conn.Close()
	names := resolver.CacheEntries * 3 / 2
	for range 2 {
		for i := range names {
			if err := conn.WriteMsg(question(fmt.Sprintf("n%d.example.", i))); err != nil {
				t.Fatal(err)
			}
			if _, err := conn.ReadMsg(); err != nil {
				t.Fatal(err)
			}
		}
	}
	mu.Lock()
	defer mu.Unlock()
	again := 0
	for _, times := range asked {
		again += times - 1
	}
	if again < names-resolver.CacheEntries || again == names {
		t.Errorf("of %d names %d were asked for again, with room for %d", names, again, resolver.CacheEntries)
	}
}
