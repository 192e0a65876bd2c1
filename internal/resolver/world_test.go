package resolver_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/tangle-network/microvm-runtime/egress"
	"github.com/tangle-network/microvm-runtime/internal/resolver"
)

// patience is for what takes milliseconds.
const patience = 10 * time.Second

// upstream is a name server that answers by zone, and says what it was asked.
type upstream struct {
	mu     sync.Mutex
	zone   map[string][]string // "name TYPE" to records in the form of zone files, without name
	rcodes map[string]int      // by name
	asked  []string            // "name TYPE network"
	hold   chan struct{}       // when it is there, answers wait for its end
}

// listenBoth listens by UDP and TCP at one port. One that the kernel chooses for UDP may be somebody's for TCP: then it chooses again.
func listenBoth(t *testing.T, address string) (net.PacketConn, net.Listener) {
	t.Helper()
	var failed error
	for range 100 {
		packets, err := net.ListenPacket("udp4", address)
		if err != nil {
			t.Fatal(err)
		}
		listener, err := net.Listen("tcp4", packets.LocalAddr().String())
		if err == nil {
			return packets, listener
		}
		failed = errors.Join(err, packets.Close())
	}
	t.Fatal(failed)
	return nil, nil
}

// startUpstream serves at the address, by UDP and TCP, at a port that the first address chooses.
func startUpstream(t *testing.T, address, port string) (*upstream, string) {
	t.Helper()
	u := &upstream{zone: map[string][]string{}, rcodes: map[string]int{}}
	packets, listener := listenBoth(t, net.JoinHostPort(address, port))
	_, port, _ = net.SplitHostPort(packets.LocalAddr().String())
	for _, server := range []*dns.Server{{PacketConn: packets, Handler: u}, {Listener: listener, Handler: u}} {
		started, ended := make(chan struct{}), make(chan error, 1)
		server.NotifyStartedFunc = func() { close(started) }
		go func() { ended <- server.ActivateAndServe() }()
		<-started
		t.Cleanup(func() {
			if err := errors.Join(server.Shutdown(), <-ended); err != nil {
				t.Error(err)
			}
		})
	}
	return u, port
}

func (u *upstream) ServeDNS(w dns.ResponseWriter, query *dns.Msg) {
	question := query.Question[0]
	name, kind := strings.TrimSuffix(question.Name, "."), dns.TypeToString[question.Qtype]
	reply := new(dns.Msg).SetReply(query)
	u.mu.Lock()
	u.asked = append(u.asked, fmt.Sprint(name, " ", kind, " ", w.RemoteAddr().Network()))
	reply.Rcode = u.rcodes[name]
	hold := u.hold
	for at := name; at != ""; { // as a recursive server does, all that a chain leads to
		next := ""
		for _, record := range append(u.zone[at+" CNAME"], u.zone[at+" "+kind]...) {
			if rest, ok := strings.CutPrefix(record, "-"); ok { // a CNAME that is not followed
				record = rest
			} else if fields := strings.Fields(record); fields[1] == "CNAME" && len(reply.Answer) < 20 {
				next = strings.TrimSuffix(fields[2], ".")
			}
			parsed, err := dns.NewRR(at + ". " + record)
			if err != nil {
				panic(err)
			}
			reply.Answer = append(reply.Answer, parsed)
		}
		at = next
	}
	u.mu.Unlock()
	if hold != nil {
		<-hold
	}
	if w.RemoteAddr().Network() == "udp" {
		reply.Truncate(512)
	}
	w.WriteMsg(reply)
}

func (u *upstream) set(key string, records ...string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.zone[key] = records
}

// say makes the server answer for a name with a code.
func (u *upstream) say(name string, rcode int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.rcodes[name] = rcode
}

// wait makes the server's answers wait until the channel is closed.
func (u *upstream) wait(hold chan struct{}) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.hold = hold
}

func (u *upstream) questions() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.Clone(u.asked)
}

// world is machines, what is granted to them, and what they were denied.
type world struct {
	server   *resolver.Server
	address  string // of the server
	upstream *upstream

	mu       sync.Mutex
	policies map[netip.Addr]*resolver.Policy
	grants   []string // "machine rule address"
	ttls     []time.Duration
	refuse   error // of grants
	denied   []resolver.Denied
}

func (w *world) Policy(source netip.Addr) (*resolver.Policy, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	policy, ok := w.policies[source]
	return policy, ok
}

// allow gives the machine at source these rules, numbered from 1.
func (w *world) allow(t testing.TB, source string, rules ...string) {
	t.Helper()
	policy := &resolver.Policy{Grant: func(rule uint32, addr netip.Addr, ttl time.Duration) error {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.grants, w.ttls = append(w.grants, fmt.Sprintf("%s %d %s", source, rule, addr)), append(w.ttls, ttl)
		return w.refuse
	}}
	for i, text := range rules {
		rule, err := egress.ParseRule(text)
		if err != nil {
			t.Fatal(err)
		}
		policy.Rules = append(policy.Rules, resolver.Rule{ID: uint32(i + 1), Rule: rule})
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.policies[netip.MustParseAddr(source)] = policy
}

// granted returns what was granted since the last time.
func (w *world) granted() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	grants := w.grants
	w.grants, w.ttls = nil, nil
	return grants
}

func (w *world) wasDenied() []resolver.Denied {
	w.mu.Lock()
	defer w.mu.Unlock()
	denied := w.denied
	w.denied = nil
	return denied
}

func startWorld(t *testing.T, options resolver.Options) *world {
	t.Helper()
	w := &world{policies: map[netip.Addr]*resolver.Policy{}}
	var port string
	w.upstream, port = startUpstream(t, "127.0.0.1", "0")
	if options.Upstream == nil {
		options.Upstream = resolver.NewSystemAt(resolvConf(t, "127.0.0.1"), port)
	}
	options.Policies = w
	options.Denied = func(denied resolver.Denied) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.denied = append(w.denied, denied)
	}
	packets, listener := listenBoth(t, "127.0.0.1:0")
	w.address = packets.LocalAddr().String()
	w.server = resolver.Serve(packets, listener, options)
	t.Cleanup(func() {
		if err := w.server.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

func resolvConf(t *testing.T, servers ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "resolv.conf")
	writeResolvConf(t, path, servers...)
	return path
}

func writeResolvConf(t *testing.T, path string, servers ...string) {
	t.Helper()
	text := "search example.com\n"
	for _, server := range servers {
		text += "nameserver " + server + "\n"
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// dial connects as the machine at source.
func (w *world) dial(t testing.TB, network, source string) *dns.Conn {
	t.Helper()
	local := net.Addr(&net.UDPAddr{IP: net.ParseIP(source)})
	if network == "tcp" {
		local = &net.TCPAddr{IP: net.ParseIP(source)}
	}
	conn, err := (&net.Dialer{LocalAddr: local}).Dial(network, w.address)
	if err != nil {
		t.Fatal(err)
	}
	conn.SetDeadline(time.Now().Add(patience))
	return &dns.Conn{Conn: conn, UDPSize: 4096}
}

// ask returns the answer to a query of the machine at source.
func (w *world) ask(t testing.TB, source, name string, kind uint16) *dns.Msg {
	t.Helper()
	return w.exchange(t, "udp", source, new(dns.Msg).SetQuestion(dns.Fqdn(name), kind))
}

func (w *world) exchange(t testing.TB, network, source string, query *dns.Msg) *dns.Msg {
	t.Helper()
	conn := w.dial(t, network, source)
	defer conn.Close()
	if err := conn.WriteMsg(query); err != nil {
		t.Fatal(err)
	}
	reply, err := conn.ReadMsg()
	if err != nil {
		t.Fatalf("%s %v: %v", source, query.Question, err)
	}
	if reply.Id != query.Id || !reply.Response {
		t.Fatalf("the answer is to another question: %v", reply)
	}
	return reply
}

// say is what an answer says: its code, and its records without TTLs.
func say(reply *dns.Msg) string {
	text := dns.RcodeToString[reply.Rcode]
	for _, record := range reply.Answer {
		fields := strings.Fields(record.String())
		text += " " + strings.Join(append(fields[:1:1], fields[4:]...), "=")
	}
	return text
}
