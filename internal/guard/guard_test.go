//go:build linux

package guard

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/tangle-network/microvm-runtime/egress"
	"github.com/tangle-network/microvm-runtime/internal/firewall"
	"github.com/tangle-network/microvm-runtime/internal/netns"
	"github.com/tangle-network/microvm-runtime/internal/network"
	"github.com/tangle-network/microvm-runtime/internal/testing/leak"
	"github.com/tangle-network/microvm-runtime/internal/testing/netlab"
	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
)

func TestMain(m *testing.M) { os.Exit(leak.Main(m)) }

const (
	soon = 10 * time.Second       // within which what must come comes
	not  = 150 * time.Millisecond // how long is waited for what must not
)

// world is a network with one guest and a guard.
type world struct {
	*testing.T
	lab    *netlab.Lab
	net    *network.Network
	slot   *network.Slot
	guest  *netlab.Guest
	rules  []firewall.Rule
	dir    string
	server *Server
}

func newWorld(t *testing.T) *world {
	t.Helper()
	ring.Host(t)
	w := &world{T: t, lab: netlab.New(t), dir: filepath.Join(t.TempDir(), "guard")}
	options := network.Options{Dir: filepath.Join(t.TempDir(), "network"), ID: "0123abce", Host: w.lab.Host, Subnet: netip.MustParsePrefix("10.78.0.0/24")}
	t.Cleanup(func() {
		if err := network.Remove(context.Background(), options); err != nil {
			t.Error(err)
		}
	})
	var err error
	if w.net, err = network.Open(t.Context(), options); err != nil {
		t.Fatal(err)
	}
	if w.slot, err = w.net.Make(t.Context(), 3, os.Geteuid(), os.Getegid()); err != nil {
		t.Fatal(err)
	}
	w.guest = w.lab.Guest(t, w.slot.Namespace)
	w.write(egress.Policy{})
	w.serve()
	t.Cleanup(func() {
		w.server.Close()
		runtime.GC() // the pipes that the standard library copies by are kept in pools
		runtime.GC()
	})
	return w
}

// Exchange asks the lab's resolver in place of the host's.
func (w *world) Exchange(ctx context.Context, query *dns.Msg) (*dns.Msg, error) {
	conn, err := w.lab.Dial("udp", netip.AddrPortFrom(netlab.DNS, 53).String(), soon)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	reply, _, err := new(dns.Client).ExchangeWithConnContext(ctx, query.Copy(), &dns.Conn{Conn: conn})
	return reply, err
}

func (w *world) serve() {
	w.Helper()
	info := w.net.Info()
	var err error
	if w.server, err = Serve(Config{Dir: w.dir, Hub: w.net.HubPath(), Address: info.Hub, Subnet: info.Subnet, Upstream: w}); err != nil {
		w.Fatal(err)
	}
}

// write makes a policy the machine's: in its entry, and in its slot's rules.
func (w *world) write(policy egress.Policy) {
	w.Helper()
	w.rules = firewall.AssignIDs(w.rules, policy)
	config, err := w.net.Config(3)
	if err != nil {
		w.Fatal(err)
	}
	config.Rules, config.VerifySNI = w.rules, policy.VerifySNI
	if policy.VerifySNI {
		config.GatePort = GatePort
	}
	ns, err := netns.Open(w.slot.Namespace)
	if err != nil {
		w.Fatal(err)
	}
	defer ns.Close()
	slot, err := firewall.OpenSlot(ns)
	if err != nil {
		w.Fatal(err)
	}
	entry := Entry{UID: "machine", Address: w.slot.Addresses.Slot, Namespace: w.slot.Namespace, Rules: w.rules, VerifySNI: policy.VerifySNI}
	if err := errors.Join(slot.Install(config), slot.Close(), Write(w.dir, entry)); err != nil {
		w.Fatal(err)
	}
}

// set is write, and the guard hears of it.
func (w *world) set(verify bool, rules ...string) {
	w.Helper()
	policy := egress.Policy{VerifySNI: verify}
	for _, text := range rules {
		rule, err := egress.ParseRule(text)
		if err != nil {
			w.Fatal(err)
		}
		policy.Rules = append(policy.Rules, rule)
	}
	w.write(policy)
	if err := (Client{w.dir}).Sync(w.Context(), w.slot.Addresses.Slot); err != nil {
		w.Fatal(err)
	}
}

// look resolves a name as a guest does, and returns its first address.
func (w *world) look(name string) (netip.Addr, int) {
	w.Helper()
	reply, err := w.guest.Look("udp", netip.MustParseAddrPort("172.16.0.1:53"), name, dns.TypeA, soon)
	if err != nil {
		w.Fatalf("look up %s: %v", name, err)
	}
	for _, record := range reply.Answer {
		if a, ok := record.(*dns.A); ok {
			address, _ := netip.AddrFromSlice(a.A.To4())
			return address, reply.Rcode
		}
	}
	return netip.Addr{}, reply.Rcode
}

func TestHostNames(t *testing.T) {
	w := newWorld(t)
	if _, err := w.guest.Get("http://example.com/before", netlab.Web, not); err == nil {
		t.Error("a page came with no rule")
	}
	if address, code := w.look("example.com"); address.IsValid() || code != dns.RcodeRefused {
		t.Errorf("a name that no rule has: %v, %s", address, dns.RcodeToString[code])
	}
	w.set(false, "example.com:80")
	if _, err := w.guest.Get("http://example.com/unasked", netlab.Web, not); err == nil {
		t.Error("a page came from an address that was not asked for")
	}
	address, code := w.look("example.com")
	if address != netlab.Web || code != dns.RcodeSuccess {
		t.Fatalf("example.com is %v, %s", address, dns.RcodeToString[code])
	}
	if page, err := w.guest.Get("http://example.com/yes", address, soon); err != nil || page != "example.com /yes" {
		t.Errorf("page %q, %v", page, err)
	}
	w.look("other.example")
	if _, err := w.guest.Get("http://other.example/no", netlab.Other, not); err == nil {
		t.Error("a page came from a name that no rule has")
	}
	denied, err := Client{w.dir}.Denied(t.Context(), w.slot.Addresses.Slot)
	if err != nil || denied["other.example"] == 0 || denied["example.com"] == 0 {
		t.Errorf("denied %v, %v", denied, err)
	}
	w.set(false)
	if _, code := w.look("example.com"); code != dns.RcodeRefused {
		t.Errorf("after its rule is gone: %s", dns.RcodeToString[code])
	}
	if _, err := w.guest.Get("http://example.com/after", netlab.Web, not); err == nil {
		t.Error("a page came after the rule was gone")
	}
}

// TestHostDeniedAreToldByWhatOpensThem: an allowed name whose address only a rule for the address opens is told by that, and what no rule opens is not told.
func TestHostDeniedAreToldByWhatOpensThem(t *testing.T) {
	w := newWorld(t)
	w.set(false, "private.example", "example.com")
	if address, _ := w.look("private.example"); address.IsValid() {
		t.Fatalf("private.example is %v", address)
	}
	if _, err := w.guest.Look("udp", netip.MustParseAddrPort("172.16.0.1:53"), "example.com", dns.TypePTR, soon); err != nil {
		t.Fatal(err)
	}
	w.look("other.example")
	denied, err := Client{w.dir}.Denied(t.Context(), w.slot.Addresses.Slot)
	if want := map[string]uint64{"other.example": 1, netlab.Private.String(): 1}; err != nil || !maps.Equal(denied, want) {
		t.Errorf("denied %v, %v; want %v", denied, err, want)
	}
	w.set(false, "private.example", netlab.Private.String())
	if address, _ := w.look("private.example"); address != netlab.Private {
		t.Errorf("private.example is %v, with the rule for it", address)
	}
}

func TestHostGuardIsGone(t *testing.T) {
	w := newWorld(t)
	w.set(false, "example.com")
	if _, code := w.look("example.com"); code != dns.RcodeSuccess {
		t.Fatal(dns.RcodeToString[code])
	}
	if err := w.server.Close(); err != nil {
		t.Fatal(err)
	}
	if err := (Client{w.dir}).Sync(t.Context(), w.slot.Addresses.Slot); err == nil {
		t.Error("a guard that is gone answers")
	}
	if reply, err := w.guest.Look("udp", netip.MustParseAddrPort("172.16.0.1:53"), "example.com", dns.TypeA, not); err == nil {
		t.Errorf("without a guard: %v", reply)
	}
	w.serve()
	if address, _ := w.look("example.com"); address != netlab.Web {
		t.Errorf("with another guard example.com is %v", address)
	}
}

func TestHostOneMachineAfterTheOther(t *testing.T) {
	w := newWorld(t)
	w.set(false, "example.com")
	if _, code := w.look("example.com"); code != dns.RcodeSuccess {
		t.Fatal(dns.RcodeToString[code])
	}
	address := w.slot.Addresses.Slot
	if err := Remove(w.dir, address); err != nil {
		t.Fatal(err)
	}
	if _, code := w.look("example.com"); code != dns.RcodeRefused { // also without a word to the guard
		t.Errorf("without an entry: %s", dns.RcodeToString[code])
	}
	w.set(false, "other.example")
	if _, code := w.look("example.com"); code != dns.RcodeRefused {
		t.Errorf("the policy of the machine before holds: %s", dns.RcodeToString[code])
	}
	if got, _ := w.look("other.example"); got != netlab.Other {
		t.Errorf("other.example is %v", got)
	}
}

func TestHostVerifySNI(t *testing.T) {
	w := newWorld(t)
	w.set(true, "example.com:443", "*.example.com:443")
	if address, _ := w.look("example.com"); address != netlab.Web {
		t.Fatalf("example.com is %v", address)
	}
	if page, err := w.guest.Get("https://example.com/yes", netlab.Web, soon); err != nil || page != "example.com /yes" {
		t.Errorf("page %q, %v", page, err)
	}
	for _, name := range []string{"other.example", "www.example.org"} {
		_, err := w.guest.Get("https://"+name+"/no", netlab.Web, soon)
		if err == nil || !strings.Contains(err.Error(), "unrecognized name") {
			t.Errorf("SNI %s at an allowed address: %v", name, err)
		}
	}
	if _, err := w.guest.Get("https://www.example.com/unasked", netlab.Web, soon); err == nil {
		t.Error("a name passed that the address was no answer for")
	}
	if _, code := w.look("www.example.com"); code != dns.RcodeSuccess {
		t.Fatal(dns.RcodeToString[code])
	}
	if page, err := w.guest.Get("https://www.example.com/asked", netlab.Web, soon); err != nil || page != "www.example.com /asked" {
		t.Errorf("page %q, %v", page, err)
	}
	if err := w.server.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := w.guest.Get("https://example.com/without", netlab.Web, not); err == nil {
		t.Error("TLS passed without a gate")
	}
	w.serve()
	if _, code := w.look("example.com"); code != dns.RcodeSuccess {
		t.Fatal(dns.RcodeToString[code])
	}
	if _, err := w.guest.Get("https://example.com/again", netlab.Web, soon); err != nil {
		t.Errorf("with another guard: %v", err)
	}
	w.set(false, "example.com:443")
	if _, err := w.guest.Get("https://example.com/unlocked", netlab.Web, soon); err != nil {
		t.Errorf("without the lock: %v", err)
	}
}

func TestHostControlRefusesNonsense(t *testing.T) {
	w := newWorld(t)
	conn, err := net.Dial("unix", socketPath(w.dir))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.Write([]byte("nonsense\n"))
	conn.SetReadDeadline(time.Now().Add(soon))
	if n, _ := conn.Read(make([]byte, 10)); n != 0 {
		t.Errorf("nonsense is answered with %d bytes", n)
	}
	if err := (Client{w.dir}).Sync(t.Context(), netip.MustParseAddr("10.78.0.99")); err != nil {
		t.Errorf("of a machine that there is not: %v", err)
	}
}

// TestHostNameserversOfTheSetting: what a guard's process is told is whom it asks, in place of the host's own servers.
func TestHostNameserversOfTheSetting(t *testing.T) {
	w := newWorld(t)
	if err := w.server.Close(); err != nil {
		t.Fatal(err)
	}
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &dns.Server{PacketConn: conn, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, query *dns.Msg) {
		reply := new(dns.Msg).SetReply(query)
		reply.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: query.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: netlab.Echo.AsSlice()}}
		w.WriteMsg(reply)
	})}
	done := make(chan error, 1)
	go func() { done <- server.ActivateAndServe() }()
	t.Cleanup(func() {
		if err := errors.Join(conn.Close(), <-done); err != nil {
			t.Log(err) // its socket is closed
		}
	})
	info := w.net.Info()
	text, err := json.Marshal(Setting{Hub: w.net.HubPath(), Address: info.Hub, Subnet: info.Subnet, Nameservers: []netip.AddrPort{conn.LocalAddr().(*net.UDPAddr).AddrPort()}})
	if err != nil {
		t.Fatal(err)
	}
	var setting Setting
	if err := json.Unmarshal(text, &setting); err != nil {
		t.Fatal(err)
	}
	config := setting.config()
	config.Dir = w.dir
	if w.server, err = Serve(config); err != nil {
		t.Fatal(err)
	}
	w.set(false, "only.example")
	if address, code := w.look("only.example"); address != netlab.Echo {
		t.Errorf("only.example is %v, %s", address, dns.RcodeToString[code])
	}
}
