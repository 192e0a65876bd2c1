//go:build linux

package firecracker

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/testing/netlab"
)

// updateTo is the policy of one port of the echo server's, and a port of the host's beside it.
func updateTo(t *testing.T, echo string, host string) microvm.Change {
	policy := policyOf(t, "udp:5.9.9.7:"+echo)
	return microvm.Change{Egress: &policy, Publish: &[]microvm.Port{port(host, 80)}}
}

// passes checks that packets of the guest's come to one port of the echo server's, and to another not.
func (r *deniedRig) passes(yes, no uint16) {
	r.t.Helper()
	if err := r.guest.Echo("udp", netip.AddrPortFrom(netlab.Echo, yes), 10*time.Second); err != nil {
		r.t.Errorf("to port %d, which the record allows: %v", yes, err)
	}
	if err := r.guest.Echo("udp", netip.AddrPortFrom(netlab.Echo, no), 150*time.Millisecond); err == nil {
		r.t.Errorf("packets come to port %d, which the record does not allow", no)
	}
}

// canPublish checks whether another machine can have a port of the host's.
func (r *rig) canPublish(host string) bool {
	r.t.Helper()
	spec := r.spec.Copy()
	spec.Network = &microvm.Network{Publish: []microvm.Port{port(host, 80)}}
	vm, err := r.runtime.Create(r.t.Context(), "other", spec)
	if err != nil {
		if !errors.Is(err, microvm.ErrBusy) {
			r.t.Error(err)
		}
		return false
	}
	r.destroy(vm)
	return true
}

// hostFile is where another process finds the namespace that stands for the host's.
func (r *deniedRig) hostFile() string {
	r.t.Helper()
	path := filepath.Join(r.t.TempDir(), "host.net")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		r.t.Fatal(err)
	}
	if err := syscall.Mount(fmt.Sprintf("/proc/self/fd/%d", r.lab.Host.FD()), path, "", syscall.MS_BIND, ""); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() {
		if err := syscall.Unmount(path, syscall.MNT_DETACH); err != nil {
			r.t.Error(err)
		}
	})
	return path
}

const oldHost, newHost = "127.0.0.1:18071", "127.0.0.1:18072"

// TestHostUpdateKilledAnywhere: after Recover packets, and the host's ports, are as the record says, whichever it is.
func TestHostUpdateKilledAnywhere(t *testing.T) {
	r := newDeniedRig(t)
	var points []string
	r.setHook(func(point string) error { points = append(points, point); return nil })
	if err := r.vm.Update(t.Context(), updateTo(t, "7", oldHost)); err != nil {
		t.Fatal(err)
	}
	r.setHook(nil)
	if len(points) < 8 {
		t.Fatalf("an update has only the points %q", points)
	}
	options := childOptionsOf(r.options)
	options.Host = r.hostFile()
	for _, point := range points {
		t.Run(point, func(t *testing.T) {
			defer r.with(r.t)
			r.with(t)
			vm := r.named("one")
			if err := vm.Update(t.Context(), updateTo(t, "7", oldHost)); err != nil {
				t.Fatal(err)
			}
			r.passes(7, 7001)
			r.die(order{Options: options, Verb: "update", Name: "one", Change: updateTo(t, "7001", newHost), KillAt: point})
			r.reopen()
			if _, err := r.runtime.Recover(t.Context(), nil); err != nil {
				t.Fatal(err)
			}
			vm = r.named("one")
			has, lacks, yes, no := oldHost, newHost, uint16(7), uint16(7001)
			if r.info(vm).Spec.Network.Publish[0].Host.String() == newHost {
				has, lacks, yes, no = newHost, oldHost, 7001, 7
			}
			r.passes(yes, no)
			if got, want := r.published(vm), []string{"tcp " + has + " to 80 of 0"}; !slices.Equal(got, want) {
				t.Errorf("published %q, want %q", got, want)
			}
			if r.canPublish(has) || !r.canPublish(lacks) {
				t.Errorf("others can have %s, or can't %s", has, lacks)
			}
		})
	}
}

// TestHostTwoProcessesUpdate: when both are done, packets and ports are as the record says, whoever was last.
func TestHostTwoProcessesUpdate(t *testing.T) {
	r := newDeniedRig(t)
	options := childOptionsOf(r.options)
	options.Host = r.hostFile()
	var both sync.WaitGroup
	for _, change := range []microvm.Change{updateTo(t, "7", oldHost), updateTo(t, "7001", newHost)} {
		both.Go(func() {
			out, err := child(t.Context(), order{Options: options, Verb: "update", Name: "one", Change: change, Times: 20}).CombinedOutput()
			if err != nil || strings.Count(string(out), "ok\n") != 20 {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
	both.Wait()
	has, lacks, yes, no := oldHost, newHost, uint16(7), uint16(7001)
	if r.info(r.vm).Spec.Network.Publish[0].Host.String() == newHost {
		has, lacks, yes, no = newHost, oldHost, 7001, 7
	}
	r.passes(yes, no)
	if got, want := r.published(r.vm), []string{"tcp " + has + " to 80 of 0"}; !slices.Equal(got, want) {
		t.Errorf("published %q, want %q", got, want)
	}
	if r.canPublish(has) || !r.canPublish(lacks) {
		t.Errorf("others can have %s, or can't %s", has, lacks)
	}
}

// TestHostUpdateThatIsNotWritten changes nothing, and keeps no port that the record does not have.
func TestHostUpdateThatIsNotWritten(t *testing.T) {
	r := newDeniedRig(t)
	if err := r.vm.Update(t.Context(), updateTo(t, "7", oldHost)); err != nil {
		t.Fatal(err)
	}
	r.failAt("update/record:before", errInjected)
	if err := r.vm.Update(t.Context(), updateTo(t, "7001", newHost)); !errors.Is(err, errInjected) {
		t.Fatalf("update: %v", err)
	}
	r.setHook(nil)
	r.passes(7, 7001)
	if r.canPublish(oldHost) || !r.canPublish(newHost) {
		t.Errorf("others can have %s, or can't %s", oldHost, newHost)
	}
	if err := r.vm.Update(t.Context(), updateTo(t, "7001", newHost)); err != nil {
		t.Fatal(err)
	}
	r.passes(7001, 7)
	if !r.canPublish(oldHost) || r.canPublish(newHost) {
		t.Errorf("others can't have %s, or can %s", oldHost, newHost)
	}
}
