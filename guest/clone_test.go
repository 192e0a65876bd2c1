//go:build linux

package guest_test

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/guest"
	"github.com/tangle-network/microvm-runtime/guest/guesttest"
	"github.com/tangle-network/microvm-runtime/internal/wire"
)

const cloneID = "0123456789abcdef0123456789abcdef"

func renewal() guest.Renewal {
	return guest.Renewal{
		Token: "t1", Generation: "g1", MachineID: cloneID, Hostname: "clone-1", Env: map[string]string{"RENEWED": "yes"}, Secrets: map[string][]byte{"word": []byte("sesame")},
	}
}

// itemsOf are those of an evidence by their names.
func itemsOf(evidence microvm.Evidence) map[string]microvm.EvidenceItem {
	items := map[string]microvm.EvidenceItem{}
	for _, item := range evidence {
		items[item.Item] = item
	}
	return items
}

func TestFreezeHoldsStarts(t *testing.T) {
	a := guesttest.New(t)
	if err := guest.Freeze(t.Context(), a, "t1", time.Minute); !errors.Is(err, guest.ErrDenied) {
		t.Errorf("an agent that is not the first process: %v", err)
	}
	system := a.Pretend()
	for range 2 {
		if err := guest.Freeze(t.Context(), a, "t1", time.Minute); err != nil || system.Frozen() != "t1" {
			t.Fatalf("%v, frozen for %q", err, system.Frozen())
		}
	}
	ran := make(chan error, 1)
	go func() { ran <- guest.Command(a, "true").Run(t.Context()) }()
	if err := guest.Thaw(t.Context(), a, "t0"); err != nil || system.Frozen() != "t1" {
		t.Errorf("a thaw of another token: %v, frozen for %q", err, system.Frozen())
	}
	if _, err := guest.List(t.Context(), a); err != nil {
		t.Errorf("while a command waits: %v", err)
	}
	select {
	case err := <-ran:
		t.Errorf("a command ran while all stands: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	if err := guest.Thaw(t.Context(), a, "t1"); err != nil || system.Frozen() != "" {
		t.Errorf("%v, frozen for %q", err, system.Frozen())
	}
	if err := within(t, func() error { return <-ran }); err != nil {
		t.Error(err)
	}
}

func TestFreezeEndsByItself(t *testing.T) {
	a := guesttest.New(t)
	system := a.Pretend()
	if err := guest.Freeze(t.Context(), a, "t1", 50*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if err := within(t, func() error { return guest.Command(a, "true").Run(t.Context()) }); err != nil || system.Frozen() != "" {
		t.Errorf("%v, frozen for %q", err, system.Frozen())
	}
}

func TestRenewMakesAGuestItsOwn(t *testing.T) {
	a := guesttest.New(t)
	if _, err := guest.Renew(t.Context(), a, renewal()); !errors.Is(err, guest.ErrDenied) {
		t.Errorf("an agent that is not the first process: %v", err)
	}
	system := a.Pretend()
	hooks := filepath.Join(system.Root(), "etc/microvm/resume.d")
	if err := errors.Join(os.MkdirAll(hooks, 0o755), os.WriteFile(filepath.Join(system.Root(), "etc/machine-id"), []byte("old\n"), 0o444),
		os.WriteFile(filepath.Join(hooks, "10-app"), []byte("#!/bin/sh\necho $MICROVM_GENERATION\n"), 0o755)); err != nil {
		t.Fatal(err)
	}
	if err := guest.Freeze(t.Context(), a, "t1", time.Minute); err != nil {
		t.Fatal(err)
	}
	system.Fail("entropy", errors.New("no generator"))
	evidence, err := guest.Renew(t.Context(), a, renewal())
	if failed := evidence.Failed(); err != nil || len(failed) != 1 || failed[0] != (microvm.EvidenceItem{Item: "entropy", Mandatory: true, Detail: "64 bytes", Error: "no generator"}) || system.Frozen() != "t1" {
		t.Errorf("%+v, %v, frozen for %q", failed, err, system.Frozen())
	}
	system.Fail("entropy", nil)
	before := time.Now()
	evidence, err = guest.Renew(t.Context(), a, renewal())
	if err != nil || len(evidence.Failed()) > 0 || system.Frozen() != "" {
		t.Fatalf("%+v, %v, frozen for %q", evidence, err, system.Frozen())
	}
	if items := itemsOf(evidence); items["hook 10-app"].Detail != "g1" || !items["secrets"].Done || !items["generation"].Mandatory {
		t.Errorf("%+v", evidence)
	}
	if at := system.Clock(); at.Before(before.Add(-time.Second)) || at.After(time.Now().Add(time.Second)) || system.Entropy() != 64 || system.Hostname() != "clone-1" {
		t.Errorf("clock %v, %d bytes of entropy, host name %q", at, system.Entropy(), system.Hostname())
	}
	for name, want := range map[string]string{"etc/machine-id": cloneID, "run/microvm/generation": "g1"} {
		if text, err := os.ReadFile(filepath.Join(system.Root(), name)); err != nil || string(text) != want+"\n" {
			t.Errorf("%s: %q, %v", name, text, err)
		}
	}
	if out, err := guest.Command(a, "sh", "-c", "echo $RENEWED").Output(t.Context()); err != nil || string(out) != "yes\n" {
		t.Errorf("%q, %v", out, err)
	}
}

// TestRenewHolds: a guest that is its own may stand until it is handed out, which is another renewal. Hooks belong to that one.
func TestRenewHolds(t *testing.T) {
	a := guesttest.New(t)
	system := a.Pretend()
	hooks := filepath.Join(system.Root(), "etc/microvm/resume.d")
	ran := filepath.Join(system.Root(), "ran")
	if err := errors.Join(os.MkdirAll(hooks, 0o755), os.WriteFile(filepath.Join(hooks, "10-app"), []byte("#!/bin/sh\necho $MICROVM_GENERATION >>"+ran+"\n"), 0o755)); err != nil {
		t.Fatal(err)
	}
	if err := guest.Freeze(t.Context(), a, "t1", time.Minute); err != nil {
		t.Fatal(err)
	}
	other := renewal()
	other.Token = "t2"
	if _, err := guest.Renew(t.Context(), a, other); !errors.Is(err, microvm.ErrInvalid) || !strings.Contains(err.Error(), "t1") || system.Frozen() != "t1" {
		t.Errorf("for another token than it stands for: %v, frozen for %q", err, system.Frozen())
	}
	held := renewal()
	held.Hold, held.Hostname, held.Secrets = true, "in-a-pool", nil
	evidence, err := guest.Renew(t.Context(), a, held)
	if err != nil || len(evidence.Failed()) > 0 || system.Frozen() != "t1" || system.Hostname() != "in-a-pool" {
		t.Fatalf("%+v, %v, frozen for %q, host name %q", evidence, err, system.Frozen(), system.Hostname())
	}
	if _, err := os.Stat(ran); err == nil {
		t.Error("a hook ran before the guest was handed out")
	}
	evidence, err = guest.Renew(t.Context(), a, renewal())
	if err != nil || len(evidence.Failed()) > 0 || system.Frozen() != "" || system.Hostname() != "clone-1" {
		t.Errorf("%+v, %v, frozen for %q, host name %q", evidence, err, system.Frozen(), system.Hostname())
	}
	if text, err := os.ReadFile(ran); err != nil || string(text) != "g1\n" {
		t.Errorf("hooks ran with %q, %v", text, err)
	}
	if out, err := guest.Command(a, "sh", "-c", "echo $RENEWED").Output(t.Context()); err != nil || string(out) != "yes\n" {
		t.Errorf("%q, %v", out, err)
	}
}

func TestClonesThatMakeNoSense(t *testing.T) {
	a := guesttest.New(t)
	a.Pretend()
	renew := func(spoil func(*guest.Renewal)) error {
		r := renewal()
		spoil(&r)
		_, err := guest.Renew(t.Context(), a, r)
		return err
	}
	if err := renew(func(*guest.Renewal) {}); err != nil {
		t.Error(err)
	}
	for name, err := range map[string]error{
		"no token": guest.Freeze(t.Context(), a, "", time.Minute), "no lease": guest.Freeze(t.Context(), a, "t", 0), "a lease without end": guest.Freeze(t.Context(), a, "t", guest.MaxLease+1),
		"another token":    renew(func(r *guest.Renewal) { r.Token = "a b" }),
		"no generation":    renew(func(r *guest.Renewal) { r.Generation = "" }),
		"a short id":       renew(func(r *guest.Renewal) { r.MachineID = "0" }),
		"a host name":      renew(func(r *guest.Renewal) { r.Hostname = "a b" }),
		"too much to send": renew(func(r *guest.Renewal) { r.Secrets = map[string][]byte{"a": make([]byte, wire.MaxBody)} }),
	} {
		if !errors.Is(err, microvm.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzRenewed is an agent that says of a renewal what it wants.
func FuzzRenewed(f *testing.F) {
	many, _ := json.Marshal(wire.Renewed{Items: make([]wire.RenewedItem, wire.MaxItems+1)})
	for _, seed := range []string{``, `{}`, `{"items":[{"item":"clock","done":true,"mandatory":true,"detail":"\u001b[2J","error":"a\nb"}]}`, `{"items":{}}`, string(many), `{"items":[{"item":"` + strings.Repeat("x", 9000) + `"}]}`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, said string) {
		d, _ := saying(answer(http.StatusOK, said), "")
		evidence, err := guest.Renew(t.Context(), d, renewal())
		if err != nil && (!errors.Is(err, guest.ErrAgent) || evidence != nil) || len(evidence) > wire.MaxItems {
			t.Errorf("%d items, %v", len(evidence), err)
		}
		for _, item := range evidence {
			for _, text := range []string{item.Item, item.Detail, item.Error} {
				if len(text) > 4*wire.MaxDetail || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
					t.Errorf("%q", text)
				}
			}
		}
	})
}

func TestAnOlderAgentIsNoClones(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	d := older(t)
	_, renewed := guest.Renew(ctx, d, renewal())
	for name, err := range map[string]error{"freeze": guest.Freeze(ctx, d, "t", time.Minute), "thaw": guest.Thaw(ctx, d, "t"), "renew": renewed} {
		if !errors.Is(err, microvm.ErrUnsupported) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// slowly is a way on which the first requests are under way for so long.
type slowly struct {
	guest.Dialer
	takes  []time.Duration
	dials  int
	arrive time.Time // of the last request
}

func (s *slowly) Dial(ctx context.Context, port uint32) (net.Conn, error) {
	conn, err := s.Dialer.Dial(ctx, port)
	if s.dials++; err != nil || len(s.takes) < s.dials {
		return conn, err
	}
	return &slowConn{Conn: conn, way: s, takes: s.takes[s.dials-1]}, nil
}

type slowConn struct {
	net.Conn
	way   *slowly
	takes time.Duration
}

func (c *slowConn) Write(p []byte) (int, error) {
	time.Sleep(c.takes)
	c.takes, c.way.arrive = 0, time.Now()
	return c.Conn.Write(p)
}

// TestRenewOverASlowWay: a clock that was set late by the way there is set again, until that was quick, or by what it seems to take.
func TestRenewOverASlowWay(t *testing.T) {
	const slow = 400 * time.Millisecond
	for name, takes := range map[string][]time.Duration{"once": {slow}, "again and again": slices.Repeat([]time.Duration{slow}, 20)} {
		a := guesttest.New(t)
		system := a.Pretend()
		way := &slowly{Dialer: a, takes: takes}
		evidence, err := guest.Renew(t.Context(), way, renewal())
		if err != nil || way.dials < 2 || len(evidence.Failed()) > 0 {
			t.Fatalf("%s: %+v, %v, %d requests", name, evidence, err, way.dials)
		}
		if late := way.arrive.Sub(system.Clock()); len(takes) == 1 && system.Clock().Before(way.arrive.Add(-50*time.Millisecond)) || len(takes) > 1 && (late < 0 || late > slow*3/4) {
			t.Errorf("%s: the clock was late by %v", name, late)
		}
		if detail := itemsOf(evidence)["clock"].Detail; !strings.Contains(detail, "set again") {
			t.Errorf("%s: %q", name, detail)
		}
	}
}
