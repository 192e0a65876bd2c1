package resolver_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/tangle-network/microvm-runtime/internal/resolver"
)

func TestOnlyAllowedNamesAreAnswered(t *testing.T) {
	w := startWorld(t, resolver.Options{})
	w.upstream.set("good.example A", "60 A 1.1.1.1", "60 A 1.1.1.2")
	w.upstream.set("a.wild.example A", "60 A 2.2.2.2")
	w.upstream.set("bad.example A", "60 A 3.3.3.3")
	w.allow(t, "127.0.1.1", "good.example:443", "*.wild.example", "udp:good.example:443")
	w.allow(t, "127.0.1.2", "bad.example")
	for _, test := range []struct {
		source, name, want string
		grants             []string
	}{
		{"127.0.1.1", "good.example", "NOERROR good.example.=1.1.1.1 good.example.=1.1.1.2", []string{"127.0.1.1 1 1.1.1.1", "127.0.1.1 3 1.1.1.1", "127.0.1.1 1 1.1.1.2", "127.0.1.1 3 1.1.1.2"}},
		{"127.0.1.1", "A.wild.EXAMPLE", "NOERROR a.wild.example.=2.2.2.2", []string{"127.0.1.1 2 2.2.2.2"}},
		{"127.0.1.1", "wild.example", "REFUSED", nil},
		{"127.0.1.1", "bad.example", "REFUSED", nil},
		{"127.0.1.2", "bad.example", "NOERROR bad.example.=3.3.3.3", []string{"127.0.1.2 1 3.3.3.3"}},
		{"127.0.1.2", "good.example", "REFUSED", nil},
		{"127.0.1.3", "good.example", "REFUSED", nil}, // no machine
	} {
		if got := say(w.ask(t, test.source, test.name, dns.TypeA)); got != test.want {
			t.Errorf("%s asks for %s: %s, want %s", test.source, test.name, got, test.want)
		}
		if grants := w.granted(); !slices.Equal(grants, test.grants) {
			t.Errorf("%s asks for %s: granted %v, want %v", test.source, test.name, grants, test.grants)
		}
	}
	var denied []string
	for _, one := range w.wasDenied() {
		denied = append(denied, fmt.Sprint(one.Source, " ", one.Name, " ", one.Type, " ", one.Reason))
	}
	if want := []string{"127.0.1.1 wild.example A name", "127.0.1.1 bad.example A name", "127.0.1.2 good.example A name"}; !slices.Equal(denied, want) {
		t.Errorf("denied: %q, want %q", denied, want)
	}
	if asked := w.upstream.questions(); len(asked) != 3 {
		t.Errorf("upstream was asked %q: denied names are nobody's business", asked)
	}
}

func TestTypes(t *testing.T) {
	w := startWorld(t, resolver.Options{})
	w.upstream.set("good.example A", "60 A 1.1.1.1")
	w.upstream.set("good.example AAAA", "60 AAAA 2001:db8::1")
	w.upstream.set("good.example TXT", `60 TXT "hello"`)
	w.upstream.set("good.example MX", "60 MX 10 mail.example.")
	w.upstream.set("good.example NS", "60 NS ns.example.")
	w.allow(t, "127.0.1.1", "good.example")
	for kind, want := range map[uint16]string{
		dns.TypeA: "NOERROR good.example.=1.1.1.1", dns.TypeAAAA: "NOERROR", dns.TypeHTTPS: "NOERROR", dns.TypeSVCB: "NOERROR",
		dns.TypeTXT: `NOERROR good.example.="hello"`, dns.TypeMX: "NOERROR good.example.=10=mail.example.",
		dns.TypeNS: "REFUSED", dns.TypeANY: "REFUSED", dns.TypeAXFR: "REFUSED", dns.TypePTR: "REFUSED", dns.TypeNULL: "REFUSED", 65399: "REFUSED",
	} {
		if got := say(w.ask(t, "127.0.1.1", "good.example", kind)); got != want {
			t.Errorf("%s: %s, want %s", dns.Type(kind), got, want)
		}
		if got := say(w.ask(t, "127.0.1.1", "bad.example", kind)); got != "REFUSED" {
			t.Errorf("%s of another name: %s", dns.Type(kind), got)
		}
	}
	if grants := w.granted(); len(grants) != 1 {
		t.Errorf("granted %q", grants)
	}
}

// TestNoNameOpensAReservedAddress is DNS rebinding: the attacker runs the zone of an allowed name.
func TestNoNameOpensAReservedAddress(t *testing.T) {
	host := netip.MustParseAddr("8.8.4.4")
	w := startWorld(t, resolver.Options{Host: func(addr netip.Addr) bool { return addr == host || addr == netip.MustParseAddr("10.9.9.9") }, Subnet: netip.MustParsePrefix("100.70.0.0/18")})
	w.allow(t, "127.0.1.1", "*.evil.example")
	named := []string{"*.evil.example", "tcp:10.0.0.0/8:80", "169.254.169.254", "8.8.4.4", "100.70.0.0/24", "100.64.0.0/10", "0.0.0.0/0"}
	w.allow(t, "127.0.1.2", named...)
	for i, test := range []struct{ address, named string }{
		{"10.0.0.1", "NOERROR"}, {"169.254.169.254", "NOERROR"}, {"8.8.4.4", "NOERROR"}, {"100.70.0.9", "NOERROR"}, {"100.80.0.9", "NOERROR"},
		{"127.0.0.1", ""}, {"0.0.0.0", ""}, {"192.168.1.1", ""}, {"172.16.0.1", ""}, {"169.254.169.253", ""}, {"224.0.0.1", ""}, {"255.255.255.255", ""},
		{"100.70.1.9", ""}, // in 100.64/10, and our own network's: only a rule within that names it
		{"10.9.9.9", ""},   // in 10/8, and the host's: only a /32 names it
	} {
		name := fmt.Sprintf("n%d.evil.example", i)
		w.upstream.set(name+" A", "60 A "+test.address)
		if got := say(w.ask(t, "127.0.1.1", name, dns.TypeA)); got != "NOERROR" {
			t.Errorf("%s through a name: %s", test.address, got)
		}
		if denied := w.wasDenied(); len(denied) != 1 || denied[0].Address.String() != test.address || denied[0].Reason != resolver.ReservedAddress || denied[0].Name != name {
			t.Errorf("%s: reported %+v", test.address, denied)
		}
		want := "NOERROR"
		if test.named != "" {
			want = fmt.Sprintf("NOERROR %s.=%s", name, test.address)
		}
		if got := say(w.ask(t, "127.0.1.2", name, dns.TypeA)); got != want {
			t.Errorf("%s, with rules %q: %s, want %s", test.address, named, got, want)
		}
		w.wasDenied()
		if grants := w.granted(); len(grants) > 0 {
			t.Errorf("%s was opened by a name: %q", test.address, grants)
		}
	}
	// The controls: a public address is granted, alone and among others, and also through a CNAME.
	w.upstream.set("mixed.evil.example A", "60 A 10.0.0.1", "60 A 1.2.3.4", "60 A 127.0.0.1")
	if got := say(w.ask(t, "127.0.1.1", "mixed.evil.example", dns.TypeA)); got != "NOERROR mixed.evil.example.=1.2.3.4" {
		t.Errorf("a mixed answer: %s", got)
	}
	w.upstream.set("alias.evil.example CNAME", "60 CNAME inside.corp.")
	w.upstream.set("inside.corp A", "60 A 10.0.0.1")
	if got := say(w.ask(t, "127.0.1.1", "alias.evil.example", dns.TypeA)); got != "NOERROR" {
		t.Errorf("a private address through a CNAME: %s", got)
	}
	w.upstream.set("alias2.evil.example CNAME", "60 CNAME www.other.example.")
	w.upstream.set("www.other.example A", "60 A 5.6.7.8")
	if got := say(w.ask(t, "127.0.1.1", "alias2.evil.example", dns.TypeA)); got != "NOERROR alias2.evil.example.=www.other.example. www.other.example.=5.6.7.8" {
		t.Errorf("a public address through a CNAME: %s", got)
	}
	if grants := w.granted(); !slices.Equal(grants, []string{"127.0.1.1 1 1.2.3.4", "127.0.1.1 1 5.6.7.8"}) {
		t.Errorf("granted %q", grants)
	}
	if got := say(w.ask(t, "127.0.1.1", "www.other.example", dns.TypeA)); got != "REFUSED" {
		t.Errorf("what a CNAME leads to, by itself: %s", got)
	}
}

func TestChains(t *testing.T) {
	w := startWorld(t, resolver.Options{})
	w.allow(t, "127.0.1.1", "*.example")
	chain := func(prefix string, length int, unfollowed string) {
		for i := range length {
			w.upstream.set(fmt.Sprintf("%s%d.example CNAME", prefix, i), fmt.Sprintf("%s60 CNAME %s%d.example.", unfollowed, prefix, i+1))
		}
		w.upstream.set(fmt.Sprintf("%s%d.example A", prefix, length), "60 A 1.1.1.1")
	}
	chain("whole", 8, "")
	chain("parts", 8, "-") // upstream gives one CNAME at a time
	chain("long", 9, "")
	chain("longparts", 9, "-")
	w.upstream.set("circle.example CNAME", "60 CNAME circle2.example.")
	w.upstream.set("circle2.example CNAME", "60 CNAME circle.example.")
	w.upstream.set("self.example CNAME", "-60 CNAME self.example.")
	w.upstream.set("dangling.example CNAME", "60 CNAME nowhere.example.")
	for name, want := range map[string]string{
		"whole0": "NOERROR", "parts0": "NOERROR", "long0": "SERVFAIL", "longparts0": "SERVFAIL", "circle": "SERVFAIL", "self": "SERVFAIL", "dangling": "NOERROR",
	} {
		reply := w.ask(t, "127.0.1.1", name+".example", dns.TypeA)
		if got := dns.RcodeToString[reply.Rcode]; got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
		records := 0
		if name == "whole0" || name == "parts0" {
			records = 9
		}
		if len(reply.Answer) != records || records > 0 && !strings.HasSuffix(say(reply), "8.example.=1.1.1.1") {
			t.Errorf("%s: %s, want %d records", name, say(reply), records)
		}
	}
	if grants := w.granted(); len(grants) != 2 {
		t.Errorf("granted %q", grants)
	}
}

func TestUpstreamsCodesPassThrough(t *testing.T) {
	w := startWorld(t, resolver.Options{})
	w.allow(t, "127.0.1.1", "*.example")
	w.upstream.say("gone.example", dns.RcodeNameError)
	w.upstream.say("broken.example", dns.RcodeServerFailure)
	w.upstream.say("refused.example", dns.RcodeRefused)
	for name, want := range map[string]string{"gone.example": "NXDOMAIN", "broken.example": "SERVFAIL", "refused.example": "SERVFAIL", "empty.example": "NOERROR"} {
		for range 2 { // the second time also from the cache
			if got := say(w.ask(t, "127.0.1.1", name, dns.TypeA)); got != want {
				t.Errorf("%s: %s, want %s", name, got, want)
			}
		}
	}
	if grants := w.granted(); len(grants) > 0 {
		t.Errorf("granted %q", grants)
	}
}

func TestAnAnswerThatCouldNotBeGrantedIsNotGiven(t *testing.T) {
	w := startWorld(t, resolver.Options{})
	w.upstream.set("good.example A", "60 A 1.1.1.1")
	w.allow(t, "127.0.1.1", "good.example")
	w.mu.Lock()
	w.refuse = errors.New("no such set")
	w.mu.Unlock()
	if got := say(w.ask(t, "127.0.1.1", "good.example", dns.TypeA)); got != "SERVFAIL" {
		t.Errorf("with a grant that fails: %s", got)
	}
	w.mu.Lock()
	w.refuse = nil
	w.mu.Unlock()
	if got := say(w.ask(t, "127.0.1.1", "good.example", dns.TypeA)); got != "NOERROR good.example.=1.1.1.1" {
		t.Errorf("with a grant that does not fail: %s", got)
	}
}

func TestClientsNeverKeepAnAddressLongerThanItIsOpen(t *testing.T) {
	w := startWorld(t, resolver.Options{MinTTL: 20 * time.Second, MaxTTL: 100 * time.Second, Slack: 7 * time.Second})
	w.allow(t, "127.0.1.1", "*.example")
	begin := time.Now()
	late := func(ttl uint32) uint32 { return ttl - min(ttl, uint32(time.Since(begin)/time.Second)+1) } // what can be left of it by now
	for upstreams, want := range map[int]uint32{0: 20, 10: 20, 60: 60, 5000: 100} {
		name := fmt.Sprintf("ttl%d.example", upstreams)
		w.upstream.set(name+" A", fmt.Sprintf("%d A 1.1.1.1", upstreams))
		reply := w.ask(t, "127.0.1.1", name, dns.TypeA)
		if len(reply.Answer) != 1 {
			t.Fatal(say(reply))
		}
		told := reply.Answer[0].Header().Ttl
		w.mu.Lock()
		granted := w.ttls[len(w.ttls)-1]
		w.mu.Unlock()
		if told != want && (upstreams != 60 || told > want || told < late(want)) {
			t.Errorf("a TTL of %d is told as %d, want %d", upstreams, told, want)
		}
		if over := granted - time.Duration(told)*time.Second; over < 7*time.Second || over > 8*time.Second+time.Since(begin) {
			t.Errorf("an answer for %d s is open for %s", told, granted)
		}
	}
	// A chain lives as long as its shortest part.
	w.upstream.set("alias.example CNAME", "30 CNAME target.test.")
	w.upstream.set("target.test A", "80 A 1.1.1.1")
	for _, record := range w.ask(t, "127.0.1.1", "alias.example", dns.TypeA).Answer {
		if ttl := record.Header().Ttl; ttl < late(30) || ttl > 30 {
			t.Errorf("%s", record)
		}
	}
}

func TestMachinesShareTheCacheAndNotTheGrants(t *testing.T) {
	w := startWorld(t, resolver.Options{})
	w.upstream.set("good.example A", "60 A 1.1.1.1")
	for i := 1; i <= 3; i++ {
		source := fmt.Sprintf("127.0.1.%d", i)
		w.allow(t, source, "good.example")
		if got := say(w.ask(t, source, "good.example", dns.TypeA)); got != "NOERROR good.example.=1.1.1.1" {
			t.Errorf("%s: %s", source, got)
		}
	}
	if asked := w.upstream.questions(); len(asked) != 1 {
		t.Errorf("upstream was asked %q", asked)
	}
	if grants := w.granted(); len(grants) != 3 {
		t.Errorf("granted %q", grants)
	}
}

func TestTheSameQuestionAtTheSameTimeIsAskedOnce(t *testing.T) {
	w := startWorld(t, resolver.Options{})
	w.upstream.set("good.example A", "60 A 1.1.1.1")
	hold := make(chan struct{})
	w.upstream.wait(hold)
	const machines = 20
	replies := make(chan string, machines)
	for i := range machines {
		source := fmt.Sprintf("127.0.1.%d", i+1)
		w.allow(t, source, "good.example")
		conn := w.dial(t, "udp", source)
		defer conn.Close()
		if err := conn.WriteMsg(new(dns.Msg).SetQuestion("good.example.", dns.TypeA)); err != nil {
			t.Fatal(err)
		}
		go func() {
			reply, err := conn.ReadMsg()
			if err != nil {
				replies <- err.Error()
				return
			}
			replies <- say(reply)
		}()
	}
	// When this machine is answered the others' queries have come in: who isn't in the flight finds what it left in the cache.
	w.allow(t, "127.0.2.1", "other.example")
	if got := say(w.ask(t, "127.0.2.1", "denied.example", dns.TypeA)); got != "REFUSED" {
		t.Error(got)
	}
	close(hold)
	for range machines {
		if got := <-replies; got != "NOERROR good.example.=1.1.1.1" {
			t.Error(got)
		}
	}
	if asked := w.upstream.questions(); len(asked) != 1 {
		t.Errorf("upstream was asked %d times", len(asked))
	}
}

func TestTCPAndLongAnswers(t *testing.T) {
	w := startWorld(t, resolver.Options{})
	var records []string
	for i := range 40 {
		records = append(records, fmt.Sprintf("60 A 1.1.1.%d", i))
	}
	w.upstream.set("many.example A", records...)
	w.allow(t, "127.0.1.1", "many.example")
	query := new(dns.Msg).SetQuestion("many.example.", dns.TypeA)
	short := w.exchange(t, "udp", "127.0.1.1", query)
	if short.Compress = true; !short.Truncated || short.Len() > 512 {
		t.Errorf("by UDP %d bytes, truncated: %t", short.Len(), short.Truncated)
	}
	if reply := w.exchange(t, "tcp", "127.0.1.1", query); reply.Truncated || len(reply.Answer) != 32 { // the most
		t.Errorf("by TCP %d records, truncated: %t", len(reply.Answer), reply.Truncated)
	}
	if reply := w.exchange(t, "udp", "127.0.1.1", query.SetEdns0(4096, false)); reply.Truncated || len(reply.Answer) != 32 || reply.IsEdns0() == nil {
		t.Errorf("by UDP with EDNS %d records, truncated: %t", len(reply.Answer), reply.Truncated)
	}
	if asked := w.upstream.questions(); !slices.Equal(asked, []string{"many.example A udp", "many.example A tcp"}) {
		t.Errorf("upstream was asked %q", asked)
	}
	conn := w.dial(t, "tcp", "127.0.1.1")
	defer conn.Close()
	for range 3 { // one connection, more than one query
		if err := conn.WriteMsg(query); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.ReadMsg(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDenialsSayWhyToWhoCanReadIt(t *testing.T) {
	w := startWorld(t, resolver.Options{})
	w.allow(t, "127.0.1.1", "good.example")
	reply := w.exchange(t, "udp", "127.0.1.1", new(dns.Msg).SetQuestion("bad.example.", dns.TypeA).SetEdns0(1232, false))
	opt := reply.IsEdns0()
	if reply.Rcode != dns.RcodeRefused || opt == nil || len(opt.Option) != 1 {
		t.Fatal(reply)
	}
	if ede, ok := opt.Option[0].(*dns.EDNS0_EDE); !ok || ede.InfoCode != dns.ExtendedErrorCodeProhibited {
		t.Error(opt)
	}
}

func TestOddQueries(t *testing.T) {
	w := startWorld(t, resolver.Options{})
	w.upstream.set("good.example A", "60 A 1.1.1.1")
	w.allow(t, "127.0.1.1", "*")
	odd := func(change func(*dns.Msg)) *dns.Msg {
		query := new(dns.Msg).SetQuestion("good.example.", dns.TypeA)
		change(query)
		return query
	}
	for what, test := range map[string]struct {
		query *dns.Msg
		want  string
	}{
		"nothing odd":      {odd(func(*dns.Msg) {}), "NOERROR good.example.=1.1.1.1"},
		"EDNS":             {odd(func(m *dns.Msg) { m.SetEdns0(512, true) }), "NOERROR good.example.=1.1.1.1"},
		"no question":      {odd(func(m *dns.Msg) { m.Question = nil }), "FORMERR"},
		"two questions":    {odd(func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) }), "FORMERR"},
		"an answer":        {odd(func(m *dns.Msg) { m.Answer = []dns.RR{mustRR("a.example. 60 A 1.1.1.1")} }), "FORMERR"},
		"an update":        {odd(func(m *dns.Msg) { m.Opcode = dns.OpcodeUpdate }), "NOTIMP"},
		"chaos":            {odd(func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS }), "REFUSED"},
		"EDNS version 1":   {odd(func(m *dns.Msg) { m.SetEdns0(1232, false); m.IsEdns0().SetVersion(1) }), "BADVERS"},
		"a dot in a label": {odd(func(m *dns.Msg) { m.Question[0].Name = `good\.example.` }), "REFUSED"},
		"the root":         {odd(func(m *dns.Msg) { m.Question[0].Name = "." }), "REFUSED"},
	} {
		if got := say(w.exchange(t, "udp", "127.0.1.1", test.query)); strings.Replace(got, "BADSIG", "BADVERS", 1) != test.want {
			t.Errorf("%s: %s, want %s", what, got, test.want)
		}
	}
	// What is no query gets no answer, and the server goes on: the answer that comes is the next one's.
	conn := w.dial(t, "udp", "127.0.1.1")
	defer conn.Close()
	response := odd(func(m *dns.Msg) { m.Response = true })
	packed, _ := response.Pack()
	for _, junk := range [][]byte{{}, {1}, make([]byte, 11), packed, make([]byte, 5000)} {
		if _, err := conn.Conn.Write(junk); err != nil {
			t.Fatal(err)
		}
	}
	query := odd(func(m *dns.Msg) { m.Id = response.Id + 1 })
	if err := conn.WriteMsg(query); err != nil {
		t.Fatal(err)
	}
	if reply, err := conn.ReadMsg(); err != nil || reply.Id != query.Id {
		t.Errorf("after junk: %v, %v", reply, err)
	}
}

func mustRR(text string) dns.RR {
	record, err := dns.NewRR(text)
	if err != nil {
		panic(err)
	}
	return record
}

func TestUpstreamSeesNothingOfAQueryButTheName(t *testing.T) {
	seen := make(chan *dns.Msg, 1)
	w := startWorld(t, resolver.Options{Upstream: exchangeFunc(func(query *dns.Msg) (*dns.Msg, error) {
		seen <- query
		return new(dns.Msg).SetReply(query), nil
	})})
	w.allow(t, "127.0.1.1", "good.example")
	query := new(dns.Msg).SetQuestion("GOOD.example.", dns.TypeA).SetEdns0(1232, true)
	query.IsEdns0().Option = append(query.IsEdns0().Option, &dns.EDNS0_LOCAL{Code: dns.EDNS0LOCALSTART, Data: []byte("secret")})
	query.CheckingDisabled, query.AuthenticatedData = true, true
	if got := say(w.exchange(t, "udp", "127.0.1.1", query)); got != "NOERROR" {
		t.Error(got)
	}
	got := <-seen
	if got.Question[0].Name != "good.example." || len(got.Extra) != 1 || len(got.IsEdns0().Option) > 0 || got.IsEdns0().Do() || got.CheckingDisabled || got.AuthenticatedData {
		t.Errorf("upstream sees %v", got)
	}
}

func TestCapsOfOneMachineLeaveTheOthersAlone(t *testing.T) {
	w := startWorld(t, resolver.Options{Limits: resolver.Limits{PerSecond: 1, Burst: 5, DeniedPerSecond: 1, DeniedBurst: 2}})
	w.allow(t, "127.0.1.1", "good.example")
	w.allow(t, "127.0.1.2", "good.example")
	conn := w.dial(t, "udp", "127.0.1.1")
	defer conn.Close()
	answered := make(chan struct{}, 100)
	ended, begin := make(chan struct{}), time.Now()
	go func() {
		defer close(ended)
		for {
			if _, err := conn.ReadMsg(); err != nil {
				return
			}
			answered <- struct{}{}
		}
	}()
	for range 50 {
		if err := conn.WriteMsg(new(dns.Msg).SetQuestion("bad.example.", dns.TypeA)); err != nil {
			t.Fatal(err)
		}
	}
	// The server reads one packet after the other: the neighbour's answer comes after it has judged all fifty.
	if got := say(w.ask(t, "127.0.1.2", "bad.example", dns.TypeA)); got != "REFUSED" {
		t.Errorf("the neighbour: %s", got)
	}
	for range 5 {
		<-answered
	}
	conn.Close()
	<-ended
	late := int(time.Since(begin)/time.Second) + 1
	if more := len(answered); more > late {
		t.Errorf("%d answers more than the burst", more)
	}
	reports := 0
	for _, denied := range w.wasDenied() {
		if denied.Source == netip.MustParseAddr("127.0.1.1") {
			reports++
		}
	}
	if reports < 2 || reports > 2+late {
		t.Errorf("%d reports of a burst of 2", reports)
	}
}

func TestQueriesInFlightAreBounded(t *testing.T) {
	w := startWorld(t, resolver.Options{Limits: resolver.Limits{InFlight: 2}})
	w.upstream.set("other.example A", "60 A 1.1.1.1")
	w.allow(t, "127.0.1.1", "*.example")
	w.allow(t, "127.0.1.2", "*.example")
	hold := make(chan struct{})
	w.upstream.wait(hold)
	conn := w.dial(t, "udp", "127.0.1.1")
	defer conn.Close()
	for i := range 10 {
		query := new(dns.Msg).SetQuestion(fmt.Sprintf("n%d.example.", i), dns.TypeA)
		if err := conn.WriteMsg(query); err != nil {
			t.Fatal(err)
		}
	}
	w.allow(t, "127.0.1.3", "none.example")
	w.ask(t, "127.0.1.3", "bad.example", dns.TypeA) // all ten have been judged
	close(hold)
	if got := say(w.ask(t, "127.0.1.2", "other.example", dns.TypeA)); got != "NOERROR other.example.=1.1.1.1" {
		t.Errorf("the neighbour: %s", got)
	}
	answers := 0
	for answers < 2 {
		if _, err := conn.ReadMsg(); err != nil {
			t.Fatal(err)
		}
		answers++
	}
	if asked := w.upstream.questions(); len(asked) != 3 {
		t.Errorf("upstream was asked %q", asked)
	}
}

func TestConnectionsAreBoundedAndEndWhenIdle(t *testing.T) {
	const idle = 3 * time.Second // in which a busy host answers too
	w := startWorld(t, resolver.Options{Limits: resolver.Limits{Connections: 2, Idle: idle}})
	w.allow(t, "127.0.1.1", "*.example")
	w.allow(t, "127.0.1.2", "*.example")
	query := new(dns.Msg).SetQuestion("good.example.", dns.TypeA)
	first, second, third := w.dial(t, "tcp", "127.0.1.1"), w.dial(t, "tcp", "127.0.1.1"), w.dial(t, "tcp", "127.0.1.1")
	defer first.Close()
	defer second.Close()
	defer third.Close()
	if _, err := third.Conn.Read(make([]byte, 1)); err == nil || errors.Is(err, io.ErrNoProgress) {
		t.Error("a third connection is served")
	}
	if got := say(w.exchange(t, "tcp", "127.0.1.2", query)); got != "NOERROR" {
		t.Errorf("the neighbour: %s", got)
	}
	// One that says half a query, and one that says nothing, are hung up on.
	first.Conn.Write([]byte{0, 40, 1})
	for _, conn := range []*dns.Conn{first, second} {
		if _, err := conn.Conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) && !strings.Contains(fmt.Sprint(err), "reset") {
			t.Errorf("an idle connection: %v", err)
		}
	}
	if got := say(w.exchange(t, "tcp", "127.0.1.1", query)); got != "NOERROR" {
		t.Errorf("after the others: %s", got)
	}
	long := w.dial(t, "tcp", "127.0.1.1")
	defer long.Close()
	long.Conn.Write(binary.BigEndian.AppendUint16(nil, 60000))
	if _, err := long.Conn.Read(make([]byte, 1)); err == nil {
		t.Error("a query of 60000 bytes is awaited")
	}
	stranger := w.dial(t, "tcp", "127.0.1.9")
	defer stranger.Close()
	if _, err := stranger.Conn.Read(make([]byte, 1)); err == nil {
		t.Error("who has no policy is served")
	}
}

func TestCloseEndsWhatIsInFlight(t *testing.T) {
	w := startWorld(t, resolver.Options{})
	w.allow(t, "127.0.1.1", "*.example")
	hold := make(chan struct{})
	w.upstream.wait(hold)
	defer close(hold)
	conn := w.dial(t, "udp", "127.0.1.1")
	defer conn.Close()
	if err := conn.WriteMsg(new(dns.Msg).SetQuestion("slow.example.", dns.TypeA)); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); len(w.upstream.questions()) == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("upstream was not asked")
		}
	}
	idle := w.dial(t, "tcp", "127.0.1.1")
	defer idle.Close()
	closed := make(chan error, 1)
	go func() { closed <- w.server.Close() }()
	select {
	case err := <-closed:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Fatal("Close waits for upstream")
	}
	if err := w.server.Close(); err != nil {
		t.Errorf("a second Close: %v", err)
	}
	if _, err := net.Dial("tcp", w.address); err == nil {
		t.Error("it listens after Close")
	}
}
