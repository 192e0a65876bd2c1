//go:build linux

package firecracker

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/guest"
)

// warmed is the program of docs/clones.md, which adds a hook that has it take new random numbers up. It prints random numbers of the kernel's, of OpenSSL's and of its own, until it is killed.
const warmed = `import os, random, signal, ssl, time

def renew(*_):
    random.seed(os.urandom(32))
    ssl.RAND_add(os.urandom(64), 64)

signal.signal(signal.SIGHUP, renew)
while True:
    print(os.urandom(8).hex(), ssl.RAND_bytes(8).hex(), random.randbytes(8).hex(), flush=True)
    time.sleep(0.02)`

// warmedHook is that hook.
const warmedHook = `#!/bin/sh
exec pkill -HUP -x python3`

// generators are what it prints, in this order.
var generators = [...]string{"the kernel", "OpenSSL", "Python"}

// drawn is what a machine's warmed program has printed, each generator's on its own.
type drawn [len(generators)][]string

// TestLabClones: clones of one warmed program draw the same numbers where they are not made their own. Where they are, the kernel's differ, and with a hook all do.
func TestLabClones(t *testing.T) {
	r := newLabRig(t, false)
	vm := r.create(microvm.Spec{MemoryMiB: 160})
	r.start(vm)
	program := guest.Command(vm, "sh", "-c", `exec python3 -c "$0" >/tmp/drawn`, warmed)
	program.ID, program.Detached = "warmed", true
	if err := program.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	drawMore(t, vm, 0)
	for i, c := range []struct {
		name        string
		thawn, hook bool
		repeat      [len(generators)]bool
	}{
		{"made their own", false, false, [...]bool{false, true, true}},
		{"made their own, with a hook", false, true, [...]bool{false, false, false}},
		{"not made their own", true, true, [...]bool{true, true, true}},
	} {
		if c.thawn {
			awaitUptime(t, vm)
		}
		if c.hook {
			sh(t, vm, "mkdir -p /etc/microvm/resume.d; cat >/etc/microvm/resume.d/10-app.required <<'END'\n"+warmedHook+"\nEND\nchmod +x /etc/microvm/resume.d/*")
		}
		pair := r.drawPair(t, vm, fmt.Sprint("pair", i), c.thawn)
		for i, generator := range generators {
			same := 0
			for _, n := range pair[0][i] {
				if slices.Contains(pair[1][i], n) {
					same++
				}
			}
			t.Logf("%s: of %d and %d numbers of %s %d are the same", c.name, len(pair[0][i]), len(pair[1][i]), generator, same)
			if (same > 0) != c.repeat[i] {
				t.Errorf("%s: of %s %d numbers are the same, want any: %v", c.name, generator, same, c.repeat[i])
			}
		}
	}
	r.destroy(vm)
}

// awaitUptime waits until a machine has run for so long that its kernel leaves its generator alone for longer than a restore takes. It seeds that again by itself, and takes up what devices
// have done meanwhile: each minute, but after half of its uptime in the first two. The lab's guests find, when they are restored, that their clocks went on meanwhile.
func awaitUptime(t *testing.T, vm *microvm.VM) {
	t.Helper()
	const enough = 80 * time.Second
	for begin := time.Now(); ; time.Sleep(100 * time.Millisecond) {
		health, err := guest.GetHealth(t.Context(), vm)
		if err != nil || time.Since(begin) > 2*enough {
			t.Fatalf("%+v, %v", health, err)
		}
		if health.Uptime > enough {
			return
		}
	}
}

// drawPair makes two clones of a machine, and returns what each has drawn after the snapshot. The kernel seeds its generator again just before that.
func (r *labRig) drawPair(t *testing.T, vm *microvm.VM, name string, thawn bool) (pair [2]drawn) {
	t.Helper()
	sh(t, vm, `python3 -c 'import fcntl, os; fcntl.ioctl(os.open("/dev/urandom", os.O_WRONLY), 0x5207)'`) // RNDRESEEDCRNG
	if err := guest.Freeze(t.Context(), vm, "count", time.Minute); err != nil {
		t.Fatal(err)
	}
	const under = 3 // lines that were drawn and not printed, or are until the snapshot's own freeze
	before := len(readDrawn(t, vm)[0]) + under
	info, err := vm.Snapshot(t.Context(), name, nil)
	if err != nil {
		t.Fatal(err)
	}
	o := r.options
	o.thawn = thawn
	rt, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	defer rt.Close()
	for i := range pair {
		clone, evidence, err := rt.Restore(t.Context(), info.UID, fmt.Sprint(name, "-", i), nil)
		if err != nil {
			t.Fatalf("%v, %+v", err, evidence)
		}
		pair[i] = drawMore(t, clone, before)
		r.destroy(clone)
	}
	return pair
}

// drawMore returns what a machine's program draws from its so manieth line on, once there is some of it.
func drawMore(t *testing.T, vm *microvm.VM, from int) (all drawn) {
	t.Helper()
	const some = 5
	for begin := time.Now(); time.Since(begin) < 30*time.Second; {
		if all = readDrawn(t, vm); len(all[0]) >= from+some {
			for i := range all {
				all[i] = all[i][from:]
			}
			return all
		}
	}
	t.Fatal("it draws nothing")
	return all
}

func readDrawn(t *testing.T, vm *microvm.VM) (all drawn) {
	t.Helper()
	text, err := guest.ReadFile(t.Context(), vm, "/tmp/drawn")
	if err != nil && !errors.Is(err, guest.ErrNotFound) {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if columns := strings.Fields(line); len(columns) == len(all) && strings.HasSuffix(line, "\n") {
			for i, column := range columns {
				all[i] = append(all[i], column)
			}
		}
	}
	return all
}

// TestLabFreeze: what runs stands and goes on, and a renewal sets what tells a machine from others, however wrong it was.
func TestLabFreeze(t *testing.T) {
	r := newLabRig(t, false)
	vm := r.create(microvm.Spec{})
	r.start(vm)
	sh(t, vm, `mkdir -p /etc/microvm/resume.d; echo old >/etc/machine-id
		printf '#!/bin/sh\ncat /sys/fs/cgroup/workload/cgroup.events; date +%%Y; cat /proc/self/cgroup' >/etc/microvm/resume.d/10-look; chmod +x /etc/microvm/resume.d/10-look`)
	counter := guest.Command(vm, "sh", "-c", "while :; do echo x; sleep 0.01; done >/tmp/count")
	counter.ID, counter.Detached = "counter", true
	if err := counter.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	awaitCount(t, vm, 1)
	for _, end := range []func() error{
		func() error { return guest.Thaw(t.Context(), vm, "t1") },
		func() error { return renewLab(t, vm) },
	} {
		for range 2 { // the second is as good as none
			if err := guest.Freeze(t.Context(), vm, "t1", time.Minute); err != nil {
				t.Fatal(err)
			}
		}
		stood := count(t, vm)
		time.Sleep(300 * time.Millisecond) // thirty times what it takes to count
		if err := guest.Thaw(t.Context(), vm, "other"); err != nil {
			t.Error(err)
		}
		if got := count(t, vm); got != stood {
			t.Errorf("it counts from %d to %d while it is frozen", stood, got)
		}
		if err := end(); err != nil {
			t.Fatal(err)
		}
		awaitCount(t, vm, stood+1)
	}
	testClock(t, vm)
	if got, want := sh(t, vm, "hostname; cat /etc/machine-id /run/microvm/generation /run/microvm/secrets/word; echo $RENEWED"), "renewed\n0123456789abcdef0123456789abcdef\ng1\nsesameyes"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	testKilled(r, vm)
	r.destroy(vm)
}

// testKilled: a machine that is killed as soon as it is its own has the same id when it is started again.
func testKilled(r *labRig, vm *microvm.VM) {
	const id = "00000000000000000000000000000001"
	if evidence, err := guest.Renew(r.t.Context(), vm, guest.Renewal{Token: "t2", Generation: "g2", MachineID: id}); err != nil || len(evidence.Failed()) > 0 {
		r.t.Fatalf("%+v, %v", evidence, err)
	}
	if _, err := vm.Stop(r.t.Context(), &microvm.StopOptions{Force: true}); err != nil {
		r.t.Fatal(err)
	}
	r.start(vm)
	if got := sh(r.t, vm, "cat /etc/machine-id"); got != id {
		r.t.Errorf("its id is %q, want %q", got, id)
	}
}

// renewLab renews a machine whose clock was set wrong.
func renewLab(t *testing.T, vm *microvm.VM) error {
	if _, err := guest.SetClock(t.Context(), vm, time.Date(2031, 5, 6, 12, 0, 0, 0, time.UTC)); err != nil {
		return err
	}
	evidence, err := guest.Renew(t.Context(), vm, guest.Renewal{
		Token: "t1", Generation: "g1", MachineID: "0123456789abcdef0123456789abcdef", Hostname: "renewed", Env: map[string]string{"RENEWED": "yes"}, Secrets: map[string][]byte{"word": []byte("sesame")},
	})
	if err != nil {
		return err
	}
	t.Logf("%+v", evidence)
	hook := evidence[len(evidence)-1]
	if want := fmt.Sprintf("populated 1\nfrozen 1\n%d\n0::/", time.Now().UTC().Year()); len(evidence.Failed()) > 0 || hook.Item != "hook 10-look" || strings.ReplaceAll(hook.Detail, "?", "\n") != want {
		t.Errorf("failed %+v, the hook says %q, want %q", evidence.Failed(), hook.Detail, want)
	}
	return nil
}

func count(t *testing.T, vm *microvm.VM) int {
	t.Helper()
	text, err := guest.ReadFile(t.Context(), vm, "/tmp/count")
	if err != nil && !errors.Is(err, guest.ErrNotFound) {
		t.Fatal(err)
	}
	return strings.Count(string(text), "x\n")
}

func awaitCount(t *testing.T, vm *microvm.VM, n int) {
	t.Helper()
	for begin := time.Now(); count(t, vm) < n; {
		if time.Since(begin) > 30*time.Second {
			t.Fatal("it does not count")
		}
	}
}

// TestTheDocumentHasTheProgram: what the lab shows is what docs/clones.md says.
func TestTheDocumentHasTheProgram(t *testing.T) {
	text, err := os.ReadFile("../docs/clones.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"```python\n" + warmed + "\n```", "```sh\n" + warmedHook + "\n```"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("it lacks %s", want)
		}
	}
}
