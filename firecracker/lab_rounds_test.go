//go:build linux

package firecracker

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/egress"
	"github.com/tangle-network/microvm-runtime/guest"
	"github.com/tangle-network/microvm-runtime/internal/testing/netlab"
	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
)

// labRounds is a machine that ends in each round and goes on from its snapshot, on a stand-in for a host whose uplink leads to servers.
type labRounds struct {
	*labRig
	lab       *netlab.Lab
	vm        *microvm.VM
	snapshots []string // those since the last full one
	poured    []byte   // what is sent into each
	sum       string   // of that, as sha256sum says it
}

// greeter is a server in the guest that says who it is.
const greeter = `import socket
s = socket.create_server(("", 8080))
while True:
    c = s.accept()[0]
    c.recv(100)
    c.sendall((socket.gethostname() + "\n").encode())
    c.close()`

// TestLabRounds: what a machine has on its disk, its network, and what it is asked outlive its end by force, round after round; and many can go on at once. A boot is dear.
func TestLabRounds(t *testing.T) {
	ring.Lab(t)
	n := &labRounds{lab: netlab.New(t), poured: make([]byte, 20<<20)}
	rand.Read(n.poured)
	n.sum = fmt.Sprintf("%x  -\n", sha256.Sum256(n.poured))
	n.labRig = newLabRigOn(t, false, n.lab.Host, func(*Options) {})
	n.vm = n.create(microvm.Spec{TrackDirty: true, MemoryMiB: 128, Network: &microvm.Network{Egress: policyOf(t, n.rule())}})
	n.start(n.vm)
	sh(t, n.vm, "echo uninitialized >/etc/machine-id")
	server := guest.Command(n.vm, "python3", "-c", greeter)
	server.ID, server.Detached = "server", true
	if err := server.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	for round, kind := range []microvm.SnapshotKind{microvm.SnapshotFull, microvm.SnapshotDiff, microvm.SnapshotFull, microvm.SnapshotDiff, microvm.SnapshotFull} {
		n.round(t, round, kind)
	}
	n.destroy(n.vm)
	n.many(t, n.snapshots[0])
}

func (n *labRounds) rule() string { return "tcp:" + netlab.Echo.String() + "/32:7" }

// round writes a machine down, kills it, and goes on from there with another.
func (n *labRounds) round(t *testing.T, round int, kind microvm.SnapshotKind) {
	data := make([]byte, 1<<20)
	rand.Read(data)
	write := guest.Command(n.vm, "sh", "-c", "cat >/data")
	write.Stdin = bytes.NewReader(data)
	if out, err := write.CombinedOutput(t.Context()); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	ends := n.acrossProcesses(t, round)
	begun := time.Now()
	info, err := n.vm.Snapshot(t.Context(), fmt.Sprint("round", round), &microvm.SnapshotOptions{Diff: kind == microvm.SnapshotDiff})
	if err != nil || info.Kind != kind {
		t.Fatalf("%+v, %v, want a %s\nconsole:\n%s", info, err, kind, n.console(n.vm))
	}
	taken := time.Now()
	for _, end := range ends {
		end()
	}
	n.kill(t)
	n.forget(t, info)
	n.vm = n.fork(info.UID, fmt.Sprint("round", round))[0]
	if got, want := sh(t, n.vm, "pkill -f /tmp/[e]nd; echo 3 >/proc/sys/vm/drop_caches; sha256sum </data"), fmt.Sprintf("%x  -", sha256.Sum256(data)); got != want {
		t.Errorf("round %d: the disk has %s, want %s", round, got, want)
	}
	n.speaks(t, n.vm, fmt.Sprint("round", round))
	n.takes(t, n.vm)
	t.Logf("round %d: a %s snapshot in %v, the rest in %v", round, kind, taken.Sub(begun), time.Since(taken))
}

// acrossProcesses starts a command by this process and one by another, as it is to the driver. What it returns ends them, on the machine that was written down, and checks what each wrote.
func (n *labRounds) acrossProcesses(t *testing.T, round int) []func() {
	other, err := New(n.options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { other.Close() })
	vm, err := other.VM(t.Context(), n.vm.UID())
	if err != nil {
		t.Fatal(err)
	}
	return []func(){across(t, n.vm, fmt.Sprint("own", round)), across(t, vm, fmt.Sprint("other", round))}
}

// across starts a command that writes lines until it is told to end, and has seen some of them when it returns. Nothing may be lost or there twice.
func across(t *testing.T, vm *microvm.VM, name string) func() {
	file := "/tmp/end-" + name
	c := guest.Command(vm, "bash", "-c", `mkfifo $0.pause; exec 3<>$0.pause; i=0; until [ -e $0 ]; do echo line $i; i=$((i+1)); read -t 0.2 -u 3; done; echo end $i`, file) // a sleep is a process
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	if err := c.Start(ctx); err != nil {
		t.Fatal(err)
	}
	head := make([]byte, len("line 0\nline 1\n"))
	if _, err := io.ReadFull(out, head); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		defer cancel()
		sh(t, vm, "touch "+file)
		rest, err := io.ReadAll(out)
		if err = errors.Join(err, c.Wait()); err != nil {
			t.Errorf("the command %s: %v", name, err)
		}
		got := string(head) + string(rest)
		var want strings.Builder
		last := strings.Count(got, "\n") - 1
		for i := range last {
			fmt.Fprintln(&want, "line", i)
		}
		fmt.Fprintln(&want, "end", last)
		if got != want.String() {
			t.Errorf("the command %s wrote %q", name, got)
		}
	}
}

// forget deletes the snapshots that a full one makes superfluous: the lab's disk is its memory.
func (n *labRounds) forget(t *testing.T, info microvm.SnapshotInfo) {
	if info.Kind == microvm.SnapshotFull {
		for _, old := range slices.Backward(n.snapshots) {
			if err := n.runtime.DeleteSnapshot(t.Context(), old); err != nil {
				t.Error(err)
			}
		}
		n.snapshots = nil
	}
	n.snapshots = append(n.snapshots, info.UID)
}

// kill ends the machine as a host may that is out of memory.
func (n *labRounds) kill(t *testing.T) {
	info, err := n.vm.Info(t.Context())
	if err == nil {
		err = syscall.Kill(info.PID, syscall.SIGKILL)
	}
	if err != nil {
		t.Fatal(err)
	}
	n.waitFor(n.vm, microvm.ReasonCrashed)
	n.destroy(n.vm)
}

// speaks has a machine say a word to a server outside, and get it back.
func (n *labRounds) speaks(t *testing.T, vm *microvm.VM, word string) {
	t.Helper()
	if got := connects(t, vm, netip.AddrPortFrom(netlab.Echo, 7), word, proberSoon); got != word {
		t.Errorf("from outside came %q, want %q", got, word)
	}
	if came := n.lab.Came(netlab.Text(word)); len(came) != 1 || came[0].From.Addr() != netlab.HostWAN {
		t.Errorf("outside there came %+v, want %q once, from %s", came, word, netlab.HostWAN)
	}
}

// connects returns the first line that a server sends to a machine that says a word to it; empty when it can't be reached for so long.
func connects(t *testing.T, vm *microvm.VM, at netip.AddrPort, word string, patience time.Duration) string {
	t.Helper()
	return sh(t, vm, fmt.Sprintf("timeout %v bash -c 'exec 3<>/dev/tcp/%s/%d && echo %s >&3 && head -n 1 <&3' 2>/dev/null || true", patience.Seconds(), at.Addr(), at.Port(), word))
}

// takes sends 20 MiB into a machine.
func (n *labRounds) takes(t *testing.T, vm *microvm.VM) {
	t.Helper()
	c := guest.Command(vm, "sha256sum")
	c.Stdin = bytes.NewReader(n.poured)
	if got, err := c.Output(t.Context()); err != nil || string(got) != n.sum {
		t.Errorf("the guest got what has the sum %s, %v, want %s", got, err, n.sum)
	}
}

// many restores eight machines of one snapshot at once: each is its own, and has to do with no other.
func (n *labRounds) many(t *testing.T, snapshot string) {
	names := make([]string, 8)
	for i := range names {
		names[i] = fmt.Sprint("many", i)
	}
	clones := n.fork(snapshot, names...)
	seen := map[string]int{}
	addresses := make([]netip.Addr, len(clones))
	for i, vm := range clones {
		info, err := vm.Info(t.Context())
		if err == nil {
			err = guest.SetSecret(t.Context(), vm, "word", []byte(names[i]))
		}
		if err != nil {
			t.Fatal(err)
		}
		addresses[i] = info.Network.Address
		own := strings.Fields(sh(t, vm, "pkill -f /tmp/[e]nd; hostname; cat /etc/machine-id /run/microvm/generation; echo "+names[i]+" >/own-"+names[i]))
		for _, what := range append(own, addresses[i].String()) {
			seen[what]++
		}
		if own[0] != names[i] || own[2] != vm.UID() {
			t.Errorf("%s is %q", names[i], own)
		}
	}
	if len(seen) != 4*len(clones) {
		t.Errorf("%d machines have the same names, ids or addresses: %v", len(clones), seen)
	}
	for i, vm := range clones {
		if got, want := sh(t, vm, "echo /own-*; cat /run/microvm/secrets/*"), "/own-"+names[i]+"\n"+names[i]; got != want {
			t.Errorf("%s has %q, want only its own: %q", names[i], got, want)
		}
		n.speaks(t, vm, names[i])
	}
	n.between(t, clones, addresses)
	for _, vm := range clones {
		n.destroy(vm)
	}
}

// between: a clone reaches another that publishes its port where its policy says so, and no third.
func (n *labRounds) between(t *testing.T, clones []*microvm.VM, addresses []netip.Addr) {
	for i, vm := range clones[1:3] {
		ports := []microvm.Port{{Protocol: egress.TCP, Guest: labPort, Host: netip.AddrPortFrom(netip.IPv4Unspecified(), uint16(labPort+i))}}
		if err := vm.Update(t.Context(), microvm.Change{Publish: &ports}); err != nil {
			t.Fatal(err)
		}
	}
	reached := func(i int, patience time.Duration) string {
		return connects(t, clones[0], netip.AddrPortFrom(addresses[i], labPort), "hello", patience)
	}
	if got := reached(1, proberNot); got != "" {
		t.Errorf("without a rule %q answers", got)
	}
	n.allow(t, clones[0], fmt.Sprintf("%s/32:%d", addresses[1], labPort))
	if got := reached(1, proberSoon); got != "many1" {
		t.Errorf("with a rule for the second %q answers", got)
	}
	if got := reached(2, proberNot); got != "" {
		t.Errorf("with a rule for the second of the third %q answers", got)
	}
}
