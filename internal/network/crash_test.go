//go:build linux

package network

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/vishvananda/netlink"

	"github.com/tangle-network/microvm-runtime/internal/netns"
)

const orderEnv = "MICROVM_TEST_NETWORK_ORDER"

// attach opens the TAP of the namespace that this process is in, by a descriptor of /dev/net/tun, as the user that it is.
func attach() error {
	var request [40]byte // struct ifreq
	copy(request[:], TAP)
	binary.NativeEndian.PutUint16(request[16:], 0x5002) // IFF_TAP, IFF_NO_PI, IFF_VNET_HDR
	const setInterface, descriptor = 0x400454ca, 3
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, descriptor, setInterface, uintptr(unsafe.Pointer(&request))); errno != 0 {
		return errno
	}
	return nil
}

// order is what another process is told to do, and where it dies of it.
type order struct {
	Dir, ID string
	Subnet  netip.Prefix
	Verb    string
	KillAt  string
}

func obey(text string) {
	var o order
	err := json.Unmarshal([]byte(text), &o)
	switch {
	case err == nil && o.Verb == "attach":
		if err = attach(); err == nil {
			os.Exit(0)
		}
	case err == nil:
		err = o.run()
	}
	fmt.Fprintln(os.Stderr, "not killed:", err)
	os.Exit(1)
}

func (o order) run() error {
	ctx := context.Background()
	n, err := Open(ctx, Options{Dir: o.Dir, ID: o.ID, Subnet: o.Subnet, Hook: func(point string) error {
		if point == o.KillAt {
			syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
		return nil
	}})
	if err != nil {
		return err
	}
	switch o.Verb {
	case "make":
		_, err = n.Make(ctx, 7, user(7), user(7))
	case "recycle":
		err = n.Recycle(ctx, 7)
	}
	return err
}

// crash lets another process do what the verb says, and be killed at a point of it.
func (r *rig) crash(verb, point string) {
	r.Helper()
	text, err := json.Marshal(order{Dir: r.options.Dir, ID: r.options.ID, Subnet: r.options.Subnet, Verb: verb, KillAt: point})
	if err != nil {
		r.Fatal(err)
	}
	cmd := exec.CommandContext(r.Context(), "/proc/self/exe")
	cmd.Env = append(os.Environ(), orderEnv+"="+string(text))
	var out []byte
	err = r.host.Do(func() (err error) {
		out, err = cmd.CombinedOutput() // to it the stand-in is the present one
		return err
	})
	exit := (*exec.ExitError)(nil)
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		r.Fatalf("not killed at %s: %v\n%s", point, err, out)
	}
}

// points returns those of what f does.
func (r *rig) points(f func(n *Network)) []string {
	var points []string
	o := r.options
	defer func() { r.options = o }()
	r.options.Hook = func(point string) error {
		points = append(points, point)
		return nil
	}
	n := r.open()
	f(n)
	return points
}

// whole is all that a network with slot 7 is, as text.
func (r *rig) whole() string {
	r.Helper()
	text := world(r.T, r.host) + r.rules(r.host)
	for _, path := range []string{r.options.hubPath(), r.options.namespace(7)} {
		ns, err := netns.Open(path)
		if err != nil {
			r.Fatal(err)
		}
		text += world(r.T, ns) + r.rules(ns)
		ns.Close()
	}
	return text
}

// rules are those of a namespace, as nft prints them.
func (r *rig) rules(ns *netns.Namespace) (text string) {
	r.Helper()
	err := ns.Do(func() error {
		out, err := exec.CommandContext(r.Context(), "nft", "--stateless", "list", "ruleset").Output()
		text = string(out)
		return err
	})
	if err != nil || !strings.Contains(text, "table ") {
		r.Fatalf("%q, %v", text, err)
	}
	return text
}

// TestHostKilledAnywhere: a network and a slot that a process was killed in the midst of are as if nothing had been.
func TestHostKilledAnywhere(t *testing.T) {
	whole := newRig(t)
	points := whole.points(func(n *Network) { whole.make(n, 7) })
	want := whole.whole()
	if len(points) < 20 {
		t.Fatalf("only the points %q", points)
	}
	for _, point := range points {
		t.Run(strings.ReplaceAll(point, "/", "-"), func(t *testing.T) {
			r := newRig(t)
			r.crash("make", point)
			n := r.open()
			r.make(n, 7)
			if got := r.whole(); got != want {
				t.Errorf("\n%s\nwant\n%s", got, want)
			}
			if entries, err := os.ReadDir(r.options.namespaces()); err != nil || len(entries) != 2 {
				t.Errorf("%v, %v", entries, err)
			}
		})
	}
}

// TestHostKilledThenRemoved: whatever there is of a network goes.
func TestHostKilledThenRemoved(t *testing.T) {
	whole := newRig(t)
	before := world(t, whole.host)
	points := whole.points(func(n *Network) { whole.make(n, 7) })
	for _, point := range points {
		t.Run(strings.ReplaceAll(point, "/", "-"), func(t *testing.T) {
			r := newRig(t)
			r.crash("make", point)
			if err := Remove(t.Context(), r.options); err != nil {
				t.Fatal(err)
			}
			if got := world(t, r.host); got != before {
				t.Errorf("\n%s\nwant\n%s", got, before)
			}
			if left, err := filepath.Glob(filepath.Join(filepath.Dir(r.options.Dir), "*")); err != nil || len(left) > 0 {
				t.Errorf("%v, %v", left, err)
			}
		})
	}
}

// TestHostKilledInRecycle: the next one finishes it.
func TestHostKilledInRecycle(t *testing.T) {
	r := newRig(t)
	n := r.open()
	r.make(n, 7)
	want := r.whole()
	points := r.points(func(n *Network) {
		if err := n.Recycle(t.Context(), 7); err != nil {
			t.Fatal(err)
		}
	})
	points = slices.DeleteFunc(points, func(point string) bool { return !strings.HasPrefix(point, "recycle/") })
	if len(points) < 10 {
		t.Fatalf("only the points %q", points)
	}
	for _, point := range points {
		r.crash("recycle", point)
		if err := n.Recycle(t.Context(), 7); err != nil {
			t.Fatalf("%s: %v", point, err)
		}
		r.make(n, 7)
		if got := r.whole(); got != want {
			t.Errorf("%s:\n%s\nwant\n%s", point, got, want)
		}
	}
}

// TestHostUserOfATAP may open it, without any capability; others may not.
func TestHostUserOfATAP(t *testing.T) {
	r := newRig(t)
	s := r.make(r.open(), 7)
	text, err := json.Marshal(order{Verb: "attach"})
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{filepath.Dir(filepath.Dir(r.options.Dir)), filepath.Dir(r.options.Dir)} {
		if err := os.Chmod(dir, 0o755); err != nil { // other users walk through it
			t.Fatal(err)
		}
	}
	path := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(path, program, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		uid, gid int
		may      bool
	}{{user(7), user(7), true}, {user(8), user(7), false}, {user(7), user(8), false}} {
		var out []byte
		err := at(s.Namespace, func(*netns.Namespace, *netlink.Handle) (err error) {
			device, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0) // of this namespace from now on
			if err != nil {
				return err
			}
			defer device.Close()
			cmd := exec.CommandContext(t.Context(), path)
			cmd.Env, cmd.ExtraFiles = append(os.Environ(), orderEnv+"="+string(text)), []*os.File{device}
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(c.uid), Gid: uint32(c.gid)}}
			out, err = cmd.CombinedOutput()
			return err
		})
		if (err == nil) != c.may || err != nil && !strings.Contains(string(out), syscall.EPERM.Error()) {
			t.Errorf("user %d, group %d: %v: %s", c.uid, c.gid, err, out)
		}
	}
}
