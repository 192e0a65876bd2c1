//go:build linux

package agent

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tangle-network/microvm-runtime/internal/wire"
)

// standing returns an agent whose workload stands, without anything in it: a directory stands for the cgroup.
func standing(t *testing.T) *host {
	t.Helper()
	h, _, _ := newClone(t)
	dir := t.TempDir()
	write(t, filepath.Join(dir, "cgroup.freeze"), "0", 0o644)
	write(t, filepath.Join(dir, "cgroup.events"), "populated 0\nfrozen 1\n", 0o644)
	h.server.workload.dir = dir
	h.must(wire.PathFreeze, `{"token": "t1", "lease_ns": 60000000000}`)
	return h
}

func (h *host) must(path, body string) []byte {
	h.t.Helper()
	status, answer := h.ask("POST", path, "", body)
	if status != 200 {
		h.t.Fatalf("%s: %d, %s", path, status, answer)
	}
	return answer
}

func (h *host) frozen() bool {
	h.t.Helper()
	text, err := os.ReadFile(filepath.Join(h.server.workload.dir, "cgroup.freeze"))
	if err != nil {
		h.t.Fatal(err)
	}
	return string(text) == "1"
}

// TestAStartThatWaitsHoldsNobodyUp: while all stands the agent answers, also those who ask for other processes.
func TestAStartThatWaitsHoldsNobodyUp(t *testing.T) {
	h := standing(t)
	started := make(chan error, 1)
	go func() {
		_, err := h.server.find(&wire.Exec{ID: "late", Nonce: "n", Argv: []string{"/bin/true"}})
		started <- err
	}()
	for begin := time.Now(); h.server.workload.waiters.Load() == 0; time.Sleep(time.Millisecond) {
		if time.Since(begin) > patience {
			t.Fatal("it does not wait")
		}
	}
	if status, answer := h.ask("GET", wire.PathProcesses, "", ""); status != 200 || strings.Contains(string(answer), "late") {
		t.Errorf("%d, %s", status, answer)
	}
	select {
	case err := <-started:
		t.Errorf("it was started while all stands: %v", err)
	default:
	}
	h.must(wire.PathThaw, `{"token": "t1"}`)
	if err := <-started; err != nil {
		t.Errorf("the one that waited: %v", err)
	}
	h.server.work.Done()
}

// TestAStartWhoseHostHasGone: what waited and is not wanted any more is not started.
func TestAStartWhoseHostHasGone(t *testing.T) {
	h := standing(t)
	started := make(chan error, 1)
	go func() {
		_, err := h.server.find(&wire.Exec{ID: "late", Nonce: "n", Argv: []string{"/bin/true"}})
		started <- err
	}()
	for begin := time.Now(); h.server.workload.waiters.Load() == 0; time.Sleep(time.Millisecond) {
		if time.Since(begin) > patience {
			t.Fatal("it does not wait")
		}
	}
	h.ask("POST", wire.PathSignal, "", `{"id": "late", "signal": 9, "forget": "n"}`)
	h.must(wire.PathThaw, `{"token": "t1"}`)
	if err := <-started; codeOf(err) != wire.CodeGone {
		t.Errorf("%v", err)
	}
}

// turns has the turns of leases that begin from now on, of which each is over when it is called.
func (h *host) turns() *[]func() {
	var turns []func()
	h.server.workload.mu.Lock()
	defer h.server.workload.mu.Unlock()
	h.server.workload.after = func(_ time.Duration, over func()) { turns = append(turns, over) }
	return &turns
}

// TestAFailedRenewalLetsNothingGoOn: not when the lease is over either. One that works does.
func TestAFailedRenewalLetsNothingGoOn(t *testing.T) {
	h := standing(t)
	add := h.server.system.addEntropy
	h.server.system.addEntropy = func([]byte) error { return os.ErrInvalid }
	turns := h.turns()
	h.must(wire.PathFreeze, `{"token": "t1", "lease_ns": 50000000}`)
	h.renew(renewal())
	(*turns)[0]()
	if !h.frozen() {
		t.Error("it goes on after the lease")
	}
	h.server.system.addEntropy = add
	h.renew(renewal())
	if h.frozen() {
		t.Error("it does not go on")
	}
}

// TestALeaseThatWasExtended: the end of a lease that is no longer the present one does nothing.
func TestALeaseThatWasExtended(t *testing.T) {
	h := standing(t)
	turns := h.turns()
	h.must(wire.PathFreeze, `{"token": "t1", "lease_ns": 30000000}`)
	end, over := (*turns)[0], make(chan struct{})
	h.server.workload.mu.Lock()
	go func() {
		defer close(over)
		end() // it waits for the lock
	}()
	h.server.workload.extend(time.Minute)
	h.server.workload.mu.Unlock()
	<-over
	if !h.frozen() {
		t.Error("an older lease lets it go on")
	}
	h.must(wire.PathFreeze, `{"token": "t1", "lease_ns": 1}`)
	(*turns)[2]()
	if h.frozen() {
		t.Error("the present one does not")
	}
}

// TestARenewalThatIsAskedForAgain: a host whose connection broke gets the answer; hooks are not run twice, the clock is that of the last question, however long it waited.
func TestARenewalThatIsAskedForAgain(t *testing.T) {
	h := standing(t)
	root := h.server.system.root
	var clock time.Time
	h.server.system.setClock = func(to time.Time) error { clock = to; return nil }
	ran := filepath.Join(root, "ran")
	write(t, filepath.Join(root, hooksDir, "10-slow"), "#!/bin/sh\necho x >>"+ran+"; while ! test -e "+root+"/go; do sleep 0.01; done\n", 0o755)
	first := renewal()
	answers := make(chan map[string]wire.RenewedItem, 2)
	go func() { answers <- h.renew(first) }()
	for begin := time.Now(); ; time.Sleep(time.Millisecond) {
		if _, err := os.Stat(ran); err == nil {
			break
		}
		if time.Since(begin) > patience {
			t.Fatal("the hook does not run")
		}
	}
	second := renewal()
	second.Unix += time.Hour
	h.must(wire.PathFreeze, `{"token": "t1", "lease_ns": 60000000000}`)
	go func() { answers <- h.renew(second) }()
	eventually(t, "the second renewal has come, and holds what stands", func() bool {
		h.server.workload.mu.Lock()
		defer h.server.workload.mu.Unlock()
		return h.server.workload.lease == nil
	})
	came := time.Now()
	time.Sleep(10 * time.Millisecond) // so that it is seen whether they count
	waits := time.Since(came)
	write(t, filepath.Join(root, "go"), "", 0o644)
	for range 2 {
		if items := <-answers; !items["hook 10-slow"].Done || !items["clock"].Done || !items["secrets"].Done {
			t.Errorf("%+v", items)
		}
	}
	if text, err := os.ReadFile(ran); err != nil || string(text) != "x\n" {
		t.Errorf("the hook ran %q, %v", text, err)
	}
	if late := clock.Sub(time.Unix(0, int64(second.Unix))); late < waits || late > patience {
		t.Errorf("the clock is %v after the question's time", late)
	}
	third := renewal()
	third.Generation = "g2"
	if items := h.renew(third); items["generation"].Detail != "g2" {
		t.Errorf("another renewal: %+v", items)
	}
	if text, _ := os.ReadFile(ran); string(text) != "x\nx\n" {
		t.Errorf("the hook ran %q", text)
	}
}

// TestMoreHooksThanAnAnswerHas: what is not run is told, and is mandatory where it would have been.
func TestMoreHooksThanAnAnswerHas(t *testing.T) {
	for last, mandatory := range map[string]bool{"99-last": false, "99-last.required": true} {
		h, _, root := newClone(t)
		for i := range wire.MaxItems {
			write(t, filepath.Join(root, hooksDir, "10-"+string(rune('0'+i/10))+string(rune('0'+i%10))), "#!/bin/true\n", 0o755)
		}
		write(t, filepath.Join(root, hooksDir, last), "#!/bin/true\n", 0o755)
		text, _ := json.Marshal(renewal())
		var all wire.Renewed
		if err := json.Unmarshal(h.must(wire.PathRenew, string(text)), &all); err != nil {
			t.Fatal(err)
		}
		if got := all.Items[len(all.Items)-1]; len(all.Items) != wire.MaxItems || got.Item != "hooks" || got.Error == "" || got.Mandatory != mandatory {
			t.Errorf("%s: %d items, the last %+v", last, len(all.Items), got)
		}
	}
}

// TestTheEndOfAFreeze: at the system's end a workload may end by itself, but not that of a machine that has not become its own.
func TestTheEndOfAFreeze(t *testing.T) {
	h := standing(t)
	h.server.system.setHostname = func(string) error { return os.ErrInvalid }
	h.server.EndFreeze()
	if h.frozen() {
		t.Error("it stands")
	}
	h.must(wire.PathFreeze, `{"token": "t1", "lease_ns": 60000000000}`)
	h.renew(renewal())
	h.server.EndFreeze()
	if !h.frozen() {
		t.Error("a clone's goes on")
	}
}

// TestHooksThatCantBeRun: what is required and can't be run fails, what is not required is no hook.
func TestHooksThatCantBeRun(t *testing.T) {
	h, _, root := newClone(t)
	write(t, filepath.Join(root, hooksDir, "10"), "no program", 0o644)
	write(t, filepath.Join(root, hooksDir, "20.required"), "no program", 0o644)
	if err := os.Symlink("/none", filepath.Join(root, hooksDir, "30.required")); err != nil {
		t.Fatal(err)
	}
	items := h.renew(renewal())
	for name, want := range map[string]bool{"hook 10": false, "hook 20.required": true, "hook 30.required": true} {
		if got := items[name]; (got.Error != "") != want || got.Mandatory != want {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// TestAClockThatJumps: a clone may find that its clock went on by more than the lease while nobody ran. The lease is what the machine has run for.
func TestAClockThatJumps(t *testing.T) {
	h := standing(t)
	var turns []func()
	var longest time.Duration
	h.server.workload.mu.Lock()
	h.server.workload.after = func(d time.Duration, f func()) { turns, longest = append(turns, f), max(longest, d) }
	h.server.workload.extend(20 * time.Minute)
	h.server.workload.mu.Unlock()
	const want = int(20 * time.Minute / leaseTurn)
	for n := range want {
		if !h.frozen() {
			t.Fatalf("it goes on after %d of %d turns", n, want)
		}
		turns[n]() // as late as the clock likes
	}
	if h.frozen() || longest > leaseTurn {
		t.Errorf("it stands after the lease, or a turn took %v", longest)
	}
}
