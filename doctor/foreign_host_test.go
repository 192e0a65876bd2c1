//go:build linux

package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/tangle-network/microvm-runtime/internal/netns"
	"github.com/tangle-network/microvm-runtime/internal/network"
	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
)

// The addresses of a stand-in for the host, with a machine on one side and the outside on the other.
const (
	machineAddress, outsideAddress, hostAddress = "10.64.0.4", "192.0.2.1", "192.0.2.2"
	outsidePort, machinePort, publishedPort     = 7000, 80, 8080
	wan                                         = "wan0"
)

// router is that stand-in. What it has of ours is what a network of ours has there.
type router struct {
	*testing.T
	*fake
	host, machine, outside *netns.Namespace
	link                   string
	atMachine, atOutside   *net.UDPConn
}

func newRouter(t *testing.T) *router {
	t.Helper()
	ring.Host(t)
	r := &router{T: t, fake: newFake(t)}
	for _, ns := range []**netns.Namespace{&r.host, &r.machine, &r.outside} {
		made, err := netns.New()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { made.Close() })
		*ns = made
	}
	id := network.ID(r.StateDir)
	r.link = "mvm-" + id
	r.fake.write("run/network/network.json", fmt.Sprintf(`{"version":1,"id":%q,"subnet":"10.64.0.0/18","uplink":%q,"mtu":1500}`, id, wan))
	r.in(r.host, func() error { return errors.Join(r.veth(r.link, r.machine), r.veth(wan, r.outside)) })
	r.sh(r.host, `
ip address add 10.64.0.1 dev LINK; ip link set LINK up; ip route add 10.64.0.2 dev LINK; ip route add 10.64.0.0/18 via 10.64.0.2 dev LINK onlink
ip address add 192.0.2.2/24 dev wan0; ip link set wan0 up; ip route add default via 192.0.2.1
sysctl -qw net/ipv4/conf/LINK/forwarding=1 net/ipv4/conf/wan0/forwarding=1
nft 'table ip microvm-ID { chain post { type nat hook postrouting priority srcnat; ip saddr 10.64.0.0/18 oifname wan0 masquerade; }
  chain pre { type nat hook prerouting priority dstnat; ip daddr 192.0.2.2 udp dport 8080 dnat to 10.64.0.4:80; }; }'`)
	r.sh(r.machine, `ip link set lo up; ip address add 10.64.0.2 dev peer; ip link set peer up; ip address add 10.64.0.4 dev lo
ip route add 10.64.0.1 dev peer; ip route add default via 10.64.0.1 dev peer src 10.64.0.4`)
	r.sh(r.outside, "ip address add 192.0.2.1/24 dev peer; ip link set peer up")
	r.atMachine, r.atOutside = r.listen(r.machine, machineAddress, machinePort), r.listen(r.outside, outsideAddress, outsidePort)
	return r
}

func (r *router) in(ns *netns.Namespace, f func() error) {
	r.Helper()
	if err := ns.Do(f); err != nil {
		r.Fatal(err)
	}
}

// veth makes a link whose other end is peer, in another namespace.
func (r *router) veth(name string, there *netns.Namespace) error {
	attributes := netlink.NewLinkAttrs()
	attributes.Name = name
	l := netlink.NewVeth(attributes)
	l.PeerName, l.PeerNamespace = "peer", netlink.NsFd(there.FD())
	return netlink.LinkAdd(l)
}

// sh runs a script in a namespace, with the names of the stand-in's link and table, and returns what it prints.
func (r *router) sh(ns *netns.Namespace, script string) string {
	r.Helper()
	script = strings.NewReplacer("LINK", r.link, "microvm-ID", "microvm-"+strings.TrimPrefix(r.link, "mvm-")).Replace(script)
	var out []byte
	r.in(ns, func() (err error) {
		if out, err = exec.CommandContext(r.Context(), "sh", "-ec", script).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", script, err, out)
		}
		return nil
	})
	return string(out)
}

func (r *router) listen(ns *netns.Namespace, address string, port int) (conn *net.UDPConn) {
	r.Helper()
	r.in(ns, func() (err error) {
		conn, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(address), uint16(port))))
		return err
	})
	r.Cleanup(func() { conn.Close() })
	return conn
}

// arrives waits for a text: long where it should come, and else no longer than what has come already takes to be read.
func arrives(conn *net.UDPConn, want string, patience time.Duration) (from netip.AddrPort, ok bool) {
	conn.SetReadDeadline(time.Now().Add(patience))
	buffer := make([]byte, 100)
	for {
		n, from, err := conn.ReadFromUDPAddrPort(buffer)
		if err != nil || string(buffer[:n]) == want {
			return from, err == nil
		}
	}
}

// passing sends a packet of each way, and says which arrived. An answer is sent only where there is something to answer: else it says nothing of it. Expected says how long to wait.
func (r *router) passing(name string, expected [ways]bool) (passes [ways]bool) {
	r.Helper()
	patience := func(way int) time.Duration {
		if expected[way] {
			return 10 * time.Second
		}
		return 200 * time.Millisecond
	}
	flow := r.listen(r.machine, machineAddress, 0) // of this probe alone: of a flow that is known already, the first packet is none
	flow.WriteToUDPAddrPort([]byte(name+" outward"), netip.AddrPortFrom(netip.MustParseAddr(outsideAddress), outsidePort))
	from, ok := arrives(r.atOutside, name+" outward", patience(outward))
	if passes[outward] = ok; ok {
		r.atOutside.WriteToUDPAddrPort([]byte(name+" answer"), from)
		_, passes[answers] = arrives(flow, name+" answer", patience(answers))
	}
	caller := r.listen(r.outside, outsideAddress, 0)
	caller.WriteToUDPAddrPort([]byte(name+" published"), netip.AddrPortFrom(netip.MustParseAddr(hostAddress), publishedPort))
	_, passes[published] = arrives(r.atMachine, name+" published", patience(published))
	return passes
}

// examine returns what doctor says of other people's firewalls; all else must be well.
func (r *router) examine() []Finding {
	r.Helper()
	var found []Finding
	for _, finding := range r.all() {
		if finding.Check == otherFirewalls {
			found = append(found, finding)
		} else if finding.Severity != OK {
			r.Errorf("%+v", finding)
		}
	}
	return found
}

// all asks doctor about the network, and shows that it changed nothing.
func (r *router) all() (report Report) {
	r.Helper()
	// But for whether links have a carrier, which the kernel tells a moment after they are up.
	const state = `nft -a list ruleset; ip -o -4 address; ip -4 neighbour show nud permanent; ip -4 rule; ip -4 route show table all | sed 's/ linkdown//'
cat /proc/net/ip_tables_names 2>/dev/null || true; sysctl -a -r '^net.ipv4.(conf|ip_)' 2>/dev/null`
	before := r.sh(r.host, state)
	h := thisHost()
	h.network = func(o network.Options) (network.View, error) {
		o.Host = r.host
		return network.Look(o)
	}
	r.in(r.host, func() error {
		report = checkNetwork(r.Context(), h, r.Options)
		return nil
	})
	checkReport(r.T, report)
	if after := r.sh(r.host, state); after != before {
		r.Errorf("doctor has changed %q to %q", lacking(before, after), lacking(after, before))
	}
	return report
}

// lacking returns the lines of one text that another lacks.
func lacking(text, other string) []string {
	others := strings.Split(other, "\n")
	return slices.DeleteFunc(strings.Split(text, "\n"), func(line string) bool { return slices.Contains(others, line) })
}

// told are the ways that findings say are open.
func told(found []Finding) (open [ways]bool) {
	for way, words := range [ways]string{outward: "what machines send", answers: "answers to machines", published: "published ports"} {
		open[way] = !slices.ContainsFunc(found, func(f Finding) bool { return f.Severity != OK && strings.Contains(f.Evidence, words) })
	}
	return open
}

// apply does what a remedy says, as the firewall that it speaks of would.
func (r *router) apply(command string) {
	r.Helper()
	fields := strings.Fields(command)
	switch fields[0] {
	case "iptables-nft":
		r.in(r.host, func() error { newIptables(r.T).run(strings.Join(fields[1:], " ")); return nil })
	case "ufw":
		r.in(r.host, func() error { newIptables(r.T).run(ufwRule(fields[3:])); return nil })
	case "firewall-cmd":
		if !slices.Contains(fields, "--permanent") {
			r.sh(r.host, "nft delete table inet firewalld")
			r.load("firewalld-trusted.nft")
		}
	case "nft", "sysctl":
		r.sh(r.host, command)
	default:
		r.Fatalf("a remedy %q", command)
	}
}

// load makes the rules of a file in testdata.
func (r *router) load(file string) {
	r.Helper()
	path, err := filepath.Abs(filepath.Join("testdata", file))
	if err != nil {
		r.Fatal(err)
	}
	if strings.HasSuffix(file, ".rules") {
		r.in(r.host, func() error { newIptables(r.T).restore(path); return nil })
		return
	}
	text, err := os.ReadFile(path)
	if err != nil {
		r.Fatal(err)
	}
	r.sh(r.host, "nft -f - <<'END'\n"+string(text)+"\nEND")
}

// TestHostRemediesOpenTheWay: what doctor says of other people's firewalls is what becomes of packets, before the remedy, at each step of it, and when it is done.
func TestHostRemediesOpenTheWay(t *testing.T) {
	all := [ways]bool{true, true, true}
	for _, test := range []struct {
		owner string
		files []string
		first [ways]bool // what is open before the remedy
	}{
		{docker, []string{"docker.rules"}, [ways]bool{}},
		{ufw, []string{"ufw.rules"}, [ways]bool{answers: true}},
		{firewalld, []string{"firewalld.nft"}, [ways]bool{answers: true, published: true}},
		{"iptables", []string{"iptables.rules"}, [ways]bool{}},
		{"nftables", []string{"plain.nft"}, [ways]bool{}},
		{docker, []string{"docker.rules", "firewalld.nft"}, [ways]bool{}},
	} {
		t.Run(strings.Join(test.files, " "), func(t *testing.T) {
			r := newRouter(t)
			if found := r.examine(); told(found) != all || r.passing("without", all) != all {
				t.Fatalf("without a firewall: %+v", found)
			}
			for _, file := range test.files {
				r.load(file)
			}
			found := r.examine()
			if told(found) != test.first || !strings.HasPrefix(found[0].Evidence, test.owner+":") {
				t.Fatalf("%+v", found)
			}
			var commands []string
			for _, finding := range found {
				commands = append(commands, commandsOf(finding.Remedy)...)
			}
			for i := 0; ; i++ {
				says := told(found)
				expected := says
				expected[answers] = says[answers] && says[outward] // else there is none
				if passes := r.passing(fmt.Sprint("step ", i), expected); passes != expected {
					t.Errorf("step %d: doctor says that %v are open, and %v are: %+v", i, says, passes, found)
				}
				if i == len(commands) {
					break
				}
				t.Log(commands[i])
				r.apply(commands[i])
				found = r.examine()
			}
			if told(found) != all {
				t.Errorf("after all of the remedy: %+v", found)
			}
		})
	}
}

// TestHostWhatIsWrongWithTheHost: each is told by the check of its name, and its remedy, where there is one that can be run, ends it.
func TestHostWhatIsWrongWithTheHost(t *testing.T) {
	for _, test := range []struct {
		name, spoil, check, words, repair string
	}{
		{"flushed", "nft list ruleset > $TMP/rules; nft flush ruleset", "masquerade", "table ip microvm-", "nft -f $TMP/rules"},
		{"not forwarding", "echo 1 > /proc/sys/net/ipv4/ip_forward; echo 0 > /proc/sys/net/ipv4/ip_forward", "forwarding", "forwarding is 0", ""},
		{"an overlapping route", "ip route add 10.64.0.0/20 via 192.0.2.1", "subnet", "the route 10.64.0.0/20 of wan0", "ip route del 10.64.0.0/20"},
		{"a rule of routing", "ip route add default via 192.0.2.1 table 7; ip rule add to 10.64.0.0/16 lookup 7 pref 7", "subnet", "by \"wan0\"", "ip rule del pref 7; ip route flush table 7"},
		{"no uplink", "ip link del wan0", "uplink", "no link leads out", ""},
		{"another uplink",
			"sysctl -qw net/ipv4/conf/default/forwarding=0; ip link add wan1 type veth peer name wan2; ip address add 198.51.100.2/24 dev wan1; ip link set wan1 up; ip route replace default via 198.51.100.1",
			"forwarding", "wan1.forwarding is 0", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newRouter(t)
			find := func() Finding {
				report := r.all()
				i := slices.IndexFunc(report, func(f Finding) bool { return f.Check == test.check })
				if i < 0 {
					t.Fatalf("%s is not in %+v", test.check, report)
				}
				return report[i]
			}
			if f := find(); f.Severity != OK {
				t.Fatalf("before: %+v", f)
			}
			tmp := strings.NewReplacer("$TMP", t.TempDir())
			r.sh(r.host, tmp.Replace(test.spoil))
			f := find()
			if f.Severity != Warning || !strings.Contains(f.Evidence, test.words) {
				t.Fatalf("%+v", f)
			}
			r.sh(r.host, tmp.Replace(test.repair))
			for _, command := range commandsOf(f.Remedy) {
				r.apply(command)
			}
			if f := find(); f.Severity != OK && test.name != "no uplink" {
				t.Errorf("repaired: %+v", f)
			}
		})
	}
}

// TestHostOurOwnNetworkIsWell, as package network makes it, and is made well again by it: what remedies say of any Start.
func TestHostOurOwnNetworkIsWell(t *testing.T) {
	r := newRouter(t)
	r.sh(r.host, "ip link del LINK; nft delete table ip microvm-ID")
	r.fake.remove("run/network")
	o := networkOptions(r.Options)
	o.Host = r.host
	t.Cleanup(func() {
		if err := network.Remove(context.Background(), o); err != nil {
			t.Error(err)
		}
	})
	odd := func() (checks []string) {
		for _, finding := range r.all() {
			if finding.Severity != OK {
				checks = append(checks, finding.Check)
			}
		}
		return checks
	}
	open := func() {
		t.Helper()
		if _, err := network.Open(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		if checks := odd(); len(checks) > 0 {
			t.Errorf("%q are not well", checks)
		}
	}
	if checks := odd(); len(checks) > 0 {
		t.Fatalf("before there is one %q are not well", checks)
	}
	open()
	r.sh(r.host, "nft flush ruleset; sysctl -qw net.ipv4.ip_forward=1 net.ipv4.ip_forward=0")
	if checks := odd(); !slices.Equal(checks, []string{"forwarding", "masquerade"}) {
		t.Errorf("%q are not well", checks)
	}
	open()
	r.sh(r.host, "ip link del LINK")
	if checks := odd(); !slices.Contains(checks, "uplink") {
		t.Errorf("%q are not well", checks)
	}
	open()
}
