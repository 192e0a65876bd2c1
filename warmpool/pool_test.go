package warmpool_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/inmemory"
	"github.com/tangle-network/microvm-runtime/warmpool"
)

// world is a store with a snapshot template/warm, and a runtime on it.
type world struct {
	t       *testing.T
	store   *inmemory.Store
	rt      *microvm.Runtime
	control inmemory.Control
	fault   atomic.Pointer[func(verb, ref string) error]
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, store: &inmemory.Store{}}
	w.rt, w.control = inmemory.NewControlled(&inmemory.Options{Store: w.store, Fault: func(verb, ref string) error {
		if fault := w.fault.Load(); fault != nil {
			return (*fault)(verb, ref)
		}
		return nil
	}})
	t.Cleanup(func() { w.rt.Close() })
	w.snapshot("template", "warm")
	return w
}

func (w *world) snapshot(machine, name string) {
	w.t.Helper()
	vm, err := w.rt.VM(w.t.Context(), machine)
	if errors.Is(err, microvm.ErrNotFound) {
		vm, err = w.rt.Create(w.t.Context(), machine, microvm.Spec{Diskless: true, Kernel: "/kernel", MemoryMiB: 128, VCPUs: 1})
		if err == nil {
			err = vm.Start(w.t.Context(), nil)
		}
	}
	if err == nil {
		_, err = vm.Snapshot(w.t.Context(), name, nil)
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) open(o warmpool.Options) *warmpool.Pool { return w.openOf("template/warm", o) }

func (w *world) openOf(snapshot string, o warmpool.Options) *warmpool.Pool {
	w.t.Helper()
	p, err := warmpool.Open(w.t.Context(), w.rt, "p", snapshot, &o)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { p.Close() })
	return p
}

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func fill(t *testing.T, p *warmpool.Pool) {
	t.Helper()
	if err := p.Fill(within(t)); err != nil {
		t.Fatal(err)
	}
}

// waiting returns the uids of what waits.
func (w *world) waiting() (uids []string) {
	w.t.Helper()
	infos, err := w.rt.List(w.t.Context(), &microvm.Filter{Labels: map[string]string{warmpool.Label: "p"}})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, info := range infos {
		if info.Held {
			uids = append(uids, info.UID)
		}
	}
	slices.Sort(uids)
	return uids
}

// await waits until something is so.
func await(t *testing.T, what string, so func() bool) {
	t.Helper()
	for begin := time.Now(); !so(); time.Sleep(time.Millisecond) {
		if time.Since(begin) > 30*time.Second {
			t.Fatal(what)
		}
	}
}

func TestTake(t *testing.T) {
	w := newWorld(t)
	p := w.open(warmpool.Options{Size: 3, Restore: microvm.RestoreOptions{Labels: map[string]string{"team": "a"}}})
	fill(t, p)
	waiting := w.waiting()
	if len(waiting) != 3 {
		t.Fatalf("%d wait, want 3", len(waiting))
	}
	vm, _, err := p.Take(within(t), "job", nil)
	if err != nil || !slices.Contains(waiting, vm.UID()) {
		t.Fatalf("%v: none of %v", err, waiting)
	}
	info, err := vm.Info(t.Context())
	if err != nil || info.Name != "job" || info.State != microvm.StateRunning || info.Held || info.Spec.Labels["team"] != "a" || info.Spec.Labels[warmpool.Label] != "p" {
		t.Errorf("taken: %+v, %v", info, err)
	}
	fill(t, p)
	if now := w.waiting(); len(now) != 3 || slices.Contains(now, vm.UID()) {
		t.Errorf("then %v wait", now)
	}
	if s := p.Status(); s.Size != 3 || s.Ready != 3 || s.Warm != 1 || s.Cold != 0 {
		t.Errorf("status %+v", s)
	}
}

// TestTakeWhatIsAskedWrong: nothing is lost by it.
func TestTakeWhatIsAskedWrong(t *testing.T) {
	w := newWorld(t)
	p := w.open(warmpool.Options{Size: 1})
	fill(t, p)
	before := w.waiting()
	taken := []microvm.Port{{Protocol: "tcp", Host: netip.MustParseAddrPort("127.0.0.1:8080"), Guest: 80}}
	if _, err := w.rt.Create(t.Context(), "has-the-port", microvm.Spec{Diskless: true, Kernel: "/kernel", Network: &microvm.Network{Publish: taken}}); err != nil {
		t.Fatal(err)
	}
	for _, ask := range []struct {
		name string
		o    *microvm.ClaimOptions
		want error
	}{{"job", &microvm.ClaimOptions{Change: microvm.Change{Publish: &taken}}, microvm.ErrBusy}, {"template", nil, microvm.ErrExists}, {"a/b", nil, microvm.ErrInvalid}, {"pool-p-mine", nil, microvm.ErrInvalid}, {"job", &microvm.ClaimOptions{Hostname: "-"}, microvm.ErrInvalid}} {
		if _, _, err := p.Take(within(t), ask.name, ask.o); !errors.Is(err, ask.want) || !strings.Contains(err.Error(), "pool p") {
			t.Errorf("%s: %v, want %v of the pool", ask.name, err, ask.want)
		}
		await(t, "it does not wait again", func() bool { return p.Status().Ready == 1 })
	}
	if now := w.waiting(); !slices.Equal(now, before) {
		t.Errorf("%v wait, before %v", now, before)
	}
	vm, _, err := p.Take(within(t), "job", nil)
	if err != nil || vm.UID() != before[0] {
		t.Errorf("%v", err)
	}
}

// TestTakeFromNothing: a machine is made that never waited.
func TestTakeFromNothing(t *testing.T) {
	w := newWorld(t)
	p := w.open(warmpool.Options{Size: 1})
	if err := p.Drain(within(t)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := p.Take(within(t), "job", nil); err != nil {
		t.Fatal(err)
	}
	if s := p.Status(); s.Cold != 1 || s.Warm != 0 || len(w.waiting()) > 0 {
		t.Errorf("status %+v", s)
	}
}

// TestTwoProcesses: over one store none is handed out twice, and both together keep as many as each is to.
func TestTwoProcesses(t *testing.T) {
	w := newWorld(t)
	other, _ := inmemory.NewControlled(&inmemory.Options{Store: w.store})
	defer other.Close()
	first := w.open(warmpool.Options{Size: 4, Parallel: 4})
	second, err := warmpool.Open(t.Context(), other, "p", "template/warm", &warmpool.Options{Size: 4, Parallel: 4})
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	const each = 100
	var mu sync.Mutex
	owner := map[string]string{}
	var taking sync.WaitGroup
	for i, p := range []*warmpool.Pool{first, second, first, second} {
		taking.Go(func() {
			for n := range each {
				name := fmt.Sprint("job-", i, "-", n)
				vm, _, err := p.Take(within(t), name, nil)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				if had := owner[vm.UID()]; had != "" {
					t.Errorf("%s is %s's and %s's", vm.UID(), had, name)
				}
				owner[vm.UID()] = name
				mu.Unlock()
			}
		})
	}
	taking.Wait()
	if len(owner) != 4*each {
		t.Errorf("%d machines for %d jobs", len(owner), 4*each)
	}
	await(t, "the pool does not settle at its size", func() bool { return len(w.waiting()) == 4 && first.Status().Ready == 4 && second.Status().Ready == 4 })
}

// TestAdopt: what waits outlives a process, and is the next one's at once.
func TestAdopt(t *testing.T) {
	w := newWorld(t)
	p := w.open(warmpool.Options{Size: 3})
	fill(t, p)
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	before := w.waiting()
	if _, _, err := p.Take(within(t), "job", nil); !errors.Is(err, microvm.ErrClosed) {
		t.Errorf("a closed pool: %v", err)
	}
	if err := p.Fill(within(t)); err != nil {
		t.Errorf("it is full: %v", err)
	}
	p = w.open(warmpool.Options{Size: 3})
	if s := p.Status(); s.Ready != 3 {
		t.Errorf("status %+v, want 3 ready at once", s)
	}
	vm, _, err := p.Take(within(t), "job", nil)
	if err != nil || !slices.Contains(before, vm.UID()) {
		t.Errorf("%v: none of %v", err, before)
	}
}

// TestBroken: a machine that ends while it waits is discarded, and another takes its place.
func TestBroken(t *testing.T) {
	w := newWorld(t)
	p := w.open(warmpool.Options{Size: 2, Interval: time.Hour})
	fill(t, p)
	before := w.waiting()
	w.control.End(before[0], microvm.Exit{Reason: microvm.ReasonCrashed})
	await(t, "it is not replaced", func() bool { now := w.waiting(); return len(now) == 2 && !slices.Contains(now, before[0]) })
	if vm, err := w.rt.VM(t.Context(), before[0]); !errors.Is(err, microvm.ErrNotFound) {
		t.Errorf("it is there still: %v, %v", vm, err)
	}
	if !slices.Contains(w.waiting(), before[1]) {
		t.Errorf("so was %s", before[1])
	}
}

// TestStale: machines of an older snapshot are replaced, by who has the newer one only; those that are too old too.
func TestStale(t *testing.T) {
	w := newWorld(t)
	old := w.open(warmpool.Options{Size: 2})
	fill(t, old)
	before := w.waiting()
	w.snapshot("template", "newer")
	p := w.openOf("template/newer", warmpool.Options{Size: 2})
	fill(t, p)
	await(t, "the old ones wait still", func() bool {
		now := w.waiting()
		return !slices.ContainsFunc(before, func(uid string) bool { return slices.Contains(now, uid) })
	})
	if err := old.Drain(within(t)); err != nil {
		t.Error(err)
	}
	fill(t, p)
	if now := w.waiting(); len(now) != 2 {
		t.Errorf("%v wait: want 2, which are no business of the old one's", now)
	}
	p.Close()
	w.openOf("template/newer", warmpool.Options{Size: 2, MaxAge: time.Nanosecond, Interval: time.Millisecond})
	now := w.waiting()
	await(t, "none is replaced for its age", func() bool { return !slices.Equal(w.waiting(), now) })
}

func TestResize(t *testing.T) {
	w := newWorld(t)
	p := w.open(warmpool.Options{Size: 2})
	fill(t, p)
	for _, size := range []int{5, 1, 3} {
		if err := p.Resize(size); err != nil {
			t.Fatal(err)
		}
		await(t, fmt.Sprint("it has not become ", size), func() bool { return p.Status().Ready == size && len(w.waiting()) == size })
	}
	if err := p.Resize(-1); !errors.Is(err, microvm.ErrInvalid) {
		t.Errorf("%v", err)
	}
	if err := p.Drain(within(t)); err != nil || len(w.waiting()) > 0 {
		t.Errorf("drained: %v, %v wait", err, w.waiting())
	}
}

// TestBackOff: a pool that can't make machines says why, tries less and less often, and goes on when it can.
func TestBackOff(t *testing.T) {
	w := newWorld(t)
	var tries atomic.Int32
	refuse := func(verb, _ string) error {
		if verb == "restore" {
			tries.Add(1)
			return errors.New("no memory")
		}
		return nil
	}
	w.fault.Store(&refuse)
	p := w.open(warmpool.Options{Size: 2})
	if err := p.Fill(within(t)); err == nil || !strings.Contains(err.Error(), "no memory") {
		t.Errorf("fill: %v", err)
	}
	for range 100 { // nobody's haste makes it try more often
		p.Resize(2)
		time.Sleep(5 * time.Millisecond)
	}
	if n := tries.Load(); n > 20 {
		t.Errorf("%d tries in half a second", n)
	}
	await(t, "it does not try again", func() bool { return tries.Load() > 1 })
	if _, _, err := p.Take(within(t), "job", nil); err == nil || !strings.Contains(err.Error(), "no memory") {
		t.Errorf("take: %v", err)
	}
	if s := p.Status(); s.Failed == 0 || !strings.Contains(s.Error, "no memory") {
		t.Errorf("status %+v", s)
	}
	w.fault.Store(nil)
	await(t, "it does not go on", func() bool { s := p.Status(); return s.Ready == 2 && s.Error == "" })
}

// TestClaimThatFails: Take goes on with another machine, and says so when all are broken.
func TestClaimThatFails(t *testing.T) {
	w := newWorld(t)
	p := w.open(warmpool.Options{Size: 3})
	fill(t, p)
	var failures atomic.Int32
	once := func(verb, _ string) error {
		if verb == "claim" && failures.Add(1) == 1 {
			return errors.New("no agent")
		}
		return nil
	}
	w.fault.Store(&once)
	if _, _, err := p.Take(within(t), "job", nil); err != nil {
		t.Error(err)
	}
	always := func(verb, _ string) error {
		if verb == "claim" {
			return errors.New("no agent")
		}
		return nil
	}
	w.fault.Store(&always)
	if _, _, err := p.Take(within(t), "other", nil); err == nil || !strings.Contains(err.Error(), "no agent") {
		t.Errorf("%v", err)
	}
}

func TestOptionsThatMakeNoSense(t *testing.T) {
	w := newWorld(t)
	for name, o := range map[string]warmpool.Options{
		"size": {Size: -1}, "age": {MaxAge: -1}, "parallel": {Parallel: -1}, "interval": {Interval: -1}, "backend": {Restore: microvm.RestoreOptions{Backend: "x"}},
		"ports": {Restore: microvm.RestoreOptions{Network: &microvm.Network{Publish: []microvm.Port{{Guest: 80}}}}},
	} {
		if _, err := warmpool.Open(t.Context(), w.rt, "p", "template/warm", &o); !errors.Is(err, microvm.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{"", "A", "a/b", strings.Repeat("a", 41)} {
		if _, err := warmpool.Open(t.Context(), w.rt, name, "template/warm", nil); !errors.Is(err, microvm.ErrInvalid) {
			t.Errorf("%q: %v", name, err)
		}
	}
	if _, err := warmpool.Open(t.Context(), w.rt, "p", "template/none", nil); !errors.Is(err, microvm.ErrNotFound) {
		t.Errorf("no snapshot: %v", err)
	}
	if len(w.waiting()) > 0 {
		t.Error("something waits")
	}
}
