//go:build linux

package firewall

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/tangle-network/microvm-runtime/internal/netns"
	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
)

var update = flag.Bool("update", false, "write testdata")

func address4(a string) netip.Addr { return netip.MustParseAddr(a) }

// list returns what nft prints of a namespace, without what counts and expires.
func list(t *testing.T, ns *netns.Namespace) string {
	t.Helper()
	var out []byte
	err := ns.Do(func() (err error) {
		out, err = exec.Command("nft", "--stateless", "list", "ruleset").CombinedOutput()
		return err
	})
	if err != nil {
		t.Fatalf("nft: %v: %s", err, out)
	}
	return string(out)
}

// compare holds what nft prints of a namespace against what it prints of one that it has loaded a file into: nft's words differ between its versions, and both are the same one's.
func compare(t *testing.T, ns *netns.Namespace, name string) {
	t.Helper()
	got, path := list(t, ns), filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := readable(got), list(t, loaded(t, readable(string(text)))); got != want {
		t.Errorf("%s differs (go test -run %s -update writes it):\n%s\nThe file's is\n%s", path, t.Name(), got, want)
	}
}

// names are where nft prints the name of a counter, a set, a map or a chain.
var names = regexp.MustCompile(`(?m)(^\t(?:counter|set|map|chain) |counter name "|@|\b(?:goto|jump) )([a-z])`)

// readable gives what nft prints names that it also reads: some of ours are words of its language.
func readable(text string) string { return names.ReplaceAllString(text, "${1}our-$2") }

// loaded is a namespace with the rules of a text.
func loaded(t *testing.T, text string) *netns.Namespace {
	t.Helper()
	ns := newNamespace(t)
	(&world{T: t}).join(ns, tap, ns, "other", "06:00:ac:10:00:02") // a chain of the family netdev needs its device
	err := ns.Do(func() error {
		command := exec.Command("nft", "-f", "-")
		command.Stdin = strings.NewReader(text)
		out, err := command.CombinedOutput()
		if err != nil {
			err = fmt.Errorf("nft -f: %w: %s", err, out)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return ns
}

func TestHostTranscriptOfASlot(t *testing.T) {
	m := newWorld(t).machine(1)
	compare(t, m.slot, "slot-deny.nft")
	m.config.Ingress = []Ingress{{"tcp", 80, 8080, []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("198.51.100.7/32")}}, {"udp", 53, 53, nil}}
	m.allow("public", "10.0.0.0/8", "198.41.0.4:443", "udp:9.9.0.0/20:5000-5010", "icmp:public", "example.com:443", "*.example.org", "udp:example.net:443", "100.64.0.0/18")
	compare(t, m.slot, "slot-rules.nft")
	m.config.VerifySNI, m.config.GatePort = true, 15443
	m.install()
	compare(t, m.slot, "slot-gate.nft")
}

func TestHostTranscriptOfTheHub(t *testing.T) {
	ring.Host(t)
	ns := newNamespace(t)
	for range 2 {
		if err := InstallHub(ns, HubConfig{Hub: address4(resolver), Subnet: netip.MustParsePrefix("100.64.0.0/18")}); err != nil {
			t.Fatal(err)
		}
		compare(t, ns, "hub.nft")
	}
}

func TestHostTranscriptOfTheHost(t *testing.T) {
	ring.Host(t)
	ns := newNamespace(t)
	h, err := OpenHost(ns, HostConfig{ID: "0123abcd", Link: "mvm-0123abcd", Subnet: netip.MustParsePrefix("100.64.0.0/18"), Published: []Publication{
		{address4("192.0.2.1"), "tcp", 8080, netip.MustParseAddrPort("100.64.0.5:80")}, {address4("0.0.0.0"), "udp", 53, netip.MustParseAddrPort("100.64.0.6:53")},
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	for range 2 {
		if err := h.Install(); err != nil {
			t.Fatal(err)
		}
		compare(t, ns, "host.nft")
	}
}
