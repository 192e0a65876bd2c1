//go:build linux

package firewall

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/tangle-network/microvm-runtime/egress"
	"github.com/tangle-network/microvm-runtime/internal/netns"
	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
)

// hostRig is the host with a link to where slots are, and one to the internet. Its routes and links are those of package network, as far as the table is concerned.
type hostRig struct {
	*world
	host, slots, internet *netns.Namespace
	table                 *Host
}

const (
	slotAddress = "100.64.0.5"
	hostEnd     = "100.64.0.1"
	wanAddress  = "192.0.2.2"
	outside     = "198.41.0.4"
)

func newHostRig(t *testing.T) *hostRig {
	t.Helper()
	ring.Host(t)
	r := &hostRig{world: &world{T: t}, host: newNamespace(t), slots: newNamespace(t), internet: newNamespace(t)}
	r.join(r.host, "mvm-0123abcd", r.slots, uplink, "06:00:00:00:00:07")
	r.join(r.host, "wan0", r.internet, "eth0", "06:00:00:00:00:08")
	r.configure(r.host, "mvm-0123abcd", hostEnd+"/32", "", slotAddress)
	r.configure(r.host, "lo", hostPublic+"/32", "", "")
	r.configure(r.slots, uplink, slotAddress+"/32", hostEnd, "")
	r.configure(r.internet, "eth0", "192.0.2.1/24", "", "")
	r.configure(r.internet, "lo", outside+"/32", "", "")
	r.configure(r.host, "wan0", wanAddress+"/24", "192.0.2.1", "")
	r.in(r.internet, func(h *netlink.Handle) error { // what has no masquerade finds no way back; the host's own address does
		link, err := h.LinkByName("eth0")
		if err != nil {
			return err
		}
		return h.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: single(hostPublic), Gw: net.ParseIP(wanAddress)})
	})
	r.settle(r.host, "mvm-0123abcd")
	r.settle(r.slots, uplink)
	r.settle(r.host, "wan0")
	r.settle(r.internet, "eth0")
	for _, ns := range []*netns.Namespace{r.slots, r.internet, r.host} {
		(&world{T: t, net: ns}).echo(5000)
	}
	table, err := OpenHost(r.host, HostConfig{ID: "0123abcd", Link: "mvm-0123abcd", Subnet: netip.MustParsePrefix("100.64.0.0/18")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { table.Close() })
	r.table = table
	r.install()
	return r
}

func (r *hostRig) install() {
	r.Helper()
	if err := r.table.Install(); err != nil {
		r.Fatal(err)
	}
}

// reaches sends a datagram and waits for its echo; for patience when that is expected, and for a moment else: then a control that passes follows.
func (r *hostRig) reaches(from *netns.Namespace, source, to string, wait time.Duration) bool {
	r.Helper()
	var conn net.Conn
	dialer := net.Dialer{}
	if source != "" {
		dialer.LocalAddr = &net.UDPAddr{IP: net.ParseIP(source)}
	}
	err := from.Do(func() (err error) {
		conn, err = dialer.Dial("udp4", to)
		return err
	})
	if err != nil {
		r.Fatal(err)
	}
	defer conn.Close()
	for deadline := time.Now().Add(wait); ; {
		conn.Write([]byte("x"))
		conn.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		if _, err := conn.Read(make([]byte, 1)); err == nil {
			return true
		}
		if time.Now().After(deadline) {
			return false
		}
	}
}

func (r *hostRig) passes(from *netns.Namespace, source, to string) {
	r.Helper()
	if !r.reaches(from, source, to, patient) {
		r.Errorf("%q → %s doesn't pass", source, to)
	}
}

func (r *hostRig) stays(from *netns.Namespace, source, to string) {
	r.Helper()
	if r.reaches(from, source, to, 60*time.Millisecond) {
		r.Errorf("%q → %s passes", source, to)
	}
}

func (r *hostRig) present() bool {
	r.Helper()
	there, err := r.table.Present()
	if err != nil {
		r.Fatal(err)
	}
	return there
}

func (r *hostRig) nft(words ...string) {
	r.Helper()
	err := r.host.Do(func() error {
		out, err := exec.Command("nft", words...).CombinedOutput()
		if err != nil {
			err = fmt.Errorf("nft %v: %w: %s", words, err, out)
		}
		return err
	})
	if err != nil {
		r.Fatal(err)
	}
}

func TestHostTable(t *testing.T) {
	r := newHostRig(t)
	r.passes(r.slots, "", outside+":5000")
	r.stays(r.slots, "", hostPublic+":5000")
	r.stays(r.slots, "", hostEnd+":5000")
	r.stays(r.slots, "", wanAddress+":5000")
	r.passes(r.internet, "", wanAddress+":5000")
	if err := r.table.Admit(address4(slotAddress), 0, address4(hostPublic)); err != nil {
		t.Fatal(err)
	}
	r.passes(r.slots, "", hostPublic+":5000")
	r.stays(r.slots, "", wanAddress+":5000")
	if err := r.table.Unpublish(address4(slotAddress)); err != nil {
		t.Fatal(err)
	}
	r.stays(r.slots, "", hostPublic+":5000")
	r.passes(r.slots, "", outside+":5000")
}

func TestHostPublish(t *testing.T) {
	r := newHostRig(t)
	to := netip.MustParseAddrPort(slotAddress + ":5000")
	r.stays(r.internet, "", wanAddress+":80")
	one := Publication{address4(wanAddress), "udp", 80, to}
	anywhere := Publication{address4("0.0.0.0"), "udp", 81, to}
	for range 2 { // again is fine
		if err := r.table.Publish(one, anywhere); err != nil {
			t.Fatal(err)
		}
	}
	r.passes(r.internet, "", wanAddress+":80")
	r.passes(r.internet, "", wanAddress+":81")
	r.passes(r.internet, "", hostPublic+":81")
	r.stays(r.internet, "", hostPublic+":80")
	r.passes(r.host, "", wanAddress+":80") // from the host itself
	r.passes(r.host, "", hostPublic+":81")

	other := one
	other.To = netip.MustParseAddrPort("100.64.0.6:5000")
	free := Publication{address4(wanAddress), "udp", 82, other.To}
	if err := r.table.Publish(free, other); !errors.Is(err, ErrTaken) {
		t.Errorf("a port that is taken: %v", err)
	}
	if list, err := r.table.Published(); err != nil || len(list) != 2 || list[0] != anywhere || list[1] != one {
		t.Errorf("published are %v, %v", list, err)
	}
	if err := r.table.Publish(free); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := r.table.Unpublish(address4(slotAddress)); err != nil {
			t.Fatal(err)
		}
	}
	if list, err := r.table.Published(); err != nil || len(list) != 1 || list[0] != free {
		t.Errorf("published are %v, %v", list, err)
	}
	r.stays(r.internet, "", hostPublic+":81")
	r.passes(r.slots, "", outside+":5000")
}

// TestHostFlushOpensNothing: a slot decides the same, whatever becomes of the host's table.
func TestHostFlushOpensNothing(t *testing.T) {
	m := newWorld(t).machine(1)
	m.allow("198.41.0.4", "public", "10.0.0.0/8")
	table, err := OpenHost(m.net, HostConfig{ID: "0123abcd", Link: "s1", Subnet: m.config.Subnet, Admitted: []Admission{{m.config.Slot, address4(public1)}}})
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	if err := table.Install(); err != nil {
		t.Fatal(err)
	}
	flows := []string{"udp:198.41.0.4:5000 passes", "tcp:198.41.0.4:80 passes", "tcp:5.5.5.5:80 denied", "tcp:10.9.9.9:80 denied",
		"tcp:169.254.169.254:80 denied", "udp:100.64.0.9:80 denied", "udp:100.64.0.2:53 denied"}
	m.check(flows...)
	(&hostRig{world: m.world, host: m.net}).nft("flush", "ruleset")
	if there, err := table.Present(); there || err != nil {
		t.Errorf("the table is there after a flush, %v", err)
	}
	m.check(flows...)
}

// TestHostTableComesBack also after less than a flush.
func TestHostTableComesBack(t *testing.T) {
	r := newHostRig(t)
	r.passes(r.slots, "", outside+":5000")
	if !r.present() {
		t.Error("the table isn't there")
	}
	r.nft("add", "table", "ip", "foreign")
	r.nft("add", "chain", "ip", "foreign", "mine")
	before := list(t, r.host)
	r.nft("flush", "ruleset")
	if r.present() {
		t.Error("the table is there after a flush")
	}
	r.stays(r.slots, "", outside+":5000") // nothing masquerades: no answer comes back
	r.nft("add", "table", "ip", "foreign")
	r.nft("add", "chain", "ip", "foreign", "mine")
	r.install()
	if !r.present() {
		t.Error("the table isn't there again")
	}
	r.passes(r.slots, "", outside+":5000")
	for _, damage := range [][]string{{"flush", "chain", "ip", "microvm-0123abcd", "postrouting"}, {"delete", "chain", "ip", "microvm-0123abcd", "input"}} {
		r.nft(damage...)
		if r.present() {
			t.Errorf("%v isn't found", damage)
		}
		r.install()
	}
	if after := list(t, r.host); len(after) != len(before) {
		t.Errorf("the tables are\n%s\nand were\n%s", after, before)
	}
	for range 2 {
		if err := r.table.Remove(); err != nil {
			t.Fatal(err)
		}
	}
	if r.present() || list(t, r.host) == "" {
		t.Error("more or less than the table was removed")
	}
}

func TestHostWatch(t *testing.T) {
	r := newHostRig(t)
	ctx, cancel := context.WithCancel(t.Context())
	lost, ended := make(chan bool, 100), make(chan error, 1)
	other, err := OpenHost(r.host, r.table.config)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	go func() {
		ended <- other.Watch(ctx, func() {
			lost <- true
			if err := other.Install(); err != nil {
				t.Error(err)
			}
		})
	}()
	for _, damage := range [][]string{{"flush", "ruleset"}, {"flush", "ruleset"}, {"flush", "table", "ip", "microvm-0123abcd"}} {
		r.nft(damage...)
		select {
		case <-lost:
		case <-time.After(patient):
			t.Fatalf("%v isn't noticed", damage)
		}
		for deadline := time.Now().Add(patient); !r.present(); {
			if time.Now().After(deadline) {
				t.Fatal("the table isn't there again")
			}
		}
	}
	r.nft("add", "table", "ip", "foreign")
	r.nft("delete", "table", "ip", "foreign")
	r.install() // removes and adds rules in one transaction
	r.passes(r.slots, "", outside+":5000")
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if len(lost) > 0 {
		t.Error("others' changes, or our own, are taken for a loss")
	}
}

// TestHostRulesDoNotGrow publishes for many slots.
func TestHostRulesDoNotGrow(t *testing.T) {
	r := newHostRig(t)
	count := func() (n int) {
		t.Helper()
		answers, err := r.table.conn.request(messageGetChain, 0x300, 0, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, answer := range answers {
			n += int(number32(values(answer.Data[4:])[6]))
		}
		return n
	}
	before := count()
	var publications []Publication
	for n := range 1000 {
		slot := netip.AddrFrom4([4]byte{100, 64, 1 + byte(n/250), byte(n % 250)})
		publications = append(publications, Publication{address4(wanAddress), "tcp", uint16(1000 + n), netip.AddrPortFrom(slot, 80)})
	}
	if err := r.table.Publish(publications...); err != nil {
		t.Fatal(err)
	}
	if after := count(); after != before || before == 0 {
		t.Errorf("%d rules, and %d before", after, before)
	}
}

// TestHostPortsOfTwoIDs: of two tables that publish a port, the kernel asks one: the second is told.
func TestHostPortsOfTwoIDs(t *testing.T) {
	ring.Host(t)
	ns := newNamespace(t)
	hosts := map[string]*Host{}
	for id, subnet := range map[string]string{"0123abcd": "100.64.0.0/18", "0123abce": "100.64.64.0/18"} {
		h, err := OpenHost(ns, HostConfig{ID: id, Link: "mvm-" + id, Subnet: netip.MustParsePrefix(subnet)})
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close()
		if err := h.Install(); err != nil {
			t.Fatal(err)
		}
		hosts[id] = h
	}
	first, second := hosts["0123abcd"], hosts["0123abce"]
	at := func(address string, protocol egress.Protocol, port uint16) Publication {
		return Publication{address4(address), protocol, port, netip.MustParseAddrPort("100.64.64.9:80")}
	}
	if err := first.Publish(Publication{address4("192.0.2.1"), "tcp", 8080, netip.MustParseAddrPort("100.64.0.9:80")}); err != nil {
		t.Fatal(err)
	}
	for _, p := range []Publication{at("192.0.2.1", "tcp", 8080), at("0.0.0.0", "tcp", 8080)} {
		for _, err := range []error{second.Publish(at("192.0.2.1", "tcp", 8081), p), second.Publishable(p)} {
			if !errors.Is(err, ErrTaken) || !strings.Contains(err.Error(), "microvm-0123abcd") {
				t.Errorf("%s: %v", p, err)
			}
		}
	}
	if list, err := second.Published(); err != nil || len(list) > 0 {
		t.Errorf("%v is published, %v", list, err)
	}
	fine := []Publication{at("192.0.2.2", "tcp", 8080), at("192.0.2.1", "udp", 8080), at("0.0.0.0", "tcp", 8082)}
	if err := errors.Join(second.Publishable(fine...), second.Publish(fine...), second.Publish(fine...)); err != nil {
		t.Error(err)
	}
	if err := errors.Join(first.Unpublish(address4("100.64.0.9")), second.Publish(at("192.0.2.1", "tcp", 8080))); err != nil {
		t.Errorf("after it was given back: %v", err)
	}
}
