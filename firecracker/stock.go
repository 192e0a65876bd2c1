//go:build linux

package firecracker

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/snapstore"
	"github.com/tangle-network/microvm-runtime/internal/step"
)

// stocked is of how many snapshots VMMs wait, of each with where its memory comes from: of those that were restored last.
const stocked = 4

// stock has VMMs that wait for the next restores: jailed, in a slot of their own, with a disk and all else that a machine of their snapshot has but a name. This process holds their locks;
// they end with its driver, and those of one that was killed are taken back as creates that were interrupted.
type stock struct {
	mu      sync.Mutex
	under   int                         // restores under way: nothing is made beside them
	latest  []wanted                    // what VMMs wait for, what was restored last at the end
	waiting map[stockKey][]*restoration // what waits
	filling bool
	making  stockKey      // what is being made
	made    chan struct{} // closed when it is
}

// stockKey is what one VMM that waits has in common with others, in whose place it can be.
type stockKey struct {
	snapshot string // Its uid.
	paged    bool   // A helper serves the memory.
}

// wanted is what VMMs wait for.
type wanted struct {
	stockKey
	manifest *snapstore.Manifest
}

func (r *restoration) key() stockKey { return stockKey{r.manifest.UID, r.paged()} }

// restored notes that a restore is under way. Over is to be called when that is done: what it took from the stock is replaced then, behind.
func (s *stock) restored(r *restoration) (over func(worked bool)) {
	d, of := r.driver, wanted{r.key(), r.manifest}
	if d.options.WaitingVMMs == 0 || r.manifest.Ephemeral {
		return func(bool) {}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.under++
	return func(worked bool) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.under--
		if worked {
			s.latest = append(s.without(of.stockKey), of)
		}
		s.fill(d)
	}
}

// without returns what VMMs wait for but one; mu is held.
func (s *stock) without(one stockKey) []wanted {
	return slices.DeleteFunc(s.latest, func(other wanted) bool { return other.stockKey == one })
}

// fill begins to make what is missing, unless somebody does, or restores are under way, which need the host's time more; mu is held.
func (s *stock) fill(d *driver) {
	if s.filling || s.under > 0 || d.life.Err() != nil {
		return
	}
	s.filling = true
	d.calls.Go(func() {
		for s.step(d) {
		}
	})
}

// step does one thing of what is to be done, and says whether there may be more.
func (s *stock) step(d *driver) bool {
	s.mu.Lock()
	surplus, missing := s.surplus(), s.missing(d)
	if s.filling = len(surplus) > 0 || missing != nil; !s.filling {
		s.mu.Unlock()
		return false
	}
	if missing != nil {
		s.making, s.made = missing.stockKey, make(chan struct{})
		defer close(s.made)
	}
	s.mu.Unlock()
	d.discard(surplus)
	if missing != nil {
		r, err := d.wait(missing)
		d.warn("no VMM waits for a restore", err, "snapshot", missing.manifest.Name)
		d.discard(s.add(missing.stockKey, r))
	}
	return true
}

// add puts one into the stock, nil where it could not be made, and returns those that are of no use then.
func (s *stock) add(of stockKey, r *restoration) []*restoration {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.making = stockKey{}
	switch {
	case r == nil: // no more until the next restore of it: there may be no place for it
		s.latest = s.without(of)
		return nil
	case !slices.ContainsFunc(s.latest, func(w wanted) bool { return w.stockKey == of }):
		return []*restoration{r}
	}
	s.waiting[of] = append(s.waiting[of], r)
	return nil
}

// surplus takes away what waits for snapshots that others have been restored since; mu is held.
func (s *stock) surplus() (all []*restoration) {
	for len(s.latest) > stocked {
		all = append(all, s.forget(s.latest[0].stockKey)...)
	}
	return all
}

// forget takes away what waits for restores of one sort; mu is held.
func (s *stock) forget(of stockKey) []*restoration {
	all := s.waiting[of]
	delete(s.waiting, of)
	s.latest = s.without(of)
	return all
}

// missing returns what too few wait for, nil where there is nothing, or that is for later; mu is held.
func (s *stock) missing(d *driver) *wanted {
	if s.under > 0 || d.life.Err() != nil {
		return nil
	}
	for _, w := range slices.Backward(s.latest) {
		if len(s.waiting[w.stockKey]) < d.options.WaitingVMMs {
			return &w
		}
	}
	return nil
}

// take returns a VMM that waits for what a restoration is of, nil where there is none.
func (s *stock) take(r *restoration) *restoration {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.waiting[r.key()]
	if len(all) == 0 {
		return nil
	}
	w := all[len(all)-1]
	s.waiting[r.key()] = all[:len(all)-1]
	if ended(w.boot.process) {
		r.driver.calls.Go(func() { r.driver.discard([]*restoration{w}) })
		return nil
	}
	return w
}

// drop ends what waits for a snapshot that is gone. It waits, as long as ctx allows, for who makes one for it, which goes then.
func (s *stock) drop(ctx context.Context, d *driver, snapshot string) {
	s.mu.Lock()
	all := slices.Concat(s.forget(stockKey{snapshot, false}), s.forget(stockKey{snapshot, true}))
	var made chan struct{}
	if s.making.snapshot == snapshot {
		made = s.made
	}
	s.mu.Unlock()
	d.discard(all)
	if made == nil {
		return
	}
	select {
	case <-made:
	case <-ctx.Done():
	}
}

// close ends all that waits. Nothing is being made any more.
func (s *stock) close(d *driver) {
	s.mu.Lock()
	var all []*restoration
	for of := range s.waiting {
		all = append(all, s.forget(of)...)
	}
	s.mu.Unlock()
	d.discard(all)
}

// waits says whether what is under a uid is no machine, but waits to become one.
func (d *driver) waits(uid string) bool {
	record, err := d.state.ReadRecord(uid)
	return err == nil && record.Waiting
}

// wait makes a VMM that waits.
func (d *driver) wait(of *wanted) (*restoration, error) {
	ctx, cancel := context.WithTimeout(d.life, answerPatience)
	defer cancel()
	drop, err := d.store.Hold(ctx)
	if err != nil {
		return nil, err
	}
	defer drop()
	hold, _, err := d.snaps.Hold(ctx, of.snapshot)
	if err != nil {
		return nil, err
	}
	defer hold.Release()
	r := &restoration{driver: d, manifest: of.manifest}
	if r.options.Backend = microvm.MemoryFile; of.paged {
		r.options.Backend = microvm.MemoryUFFD
	}
	if err := r.check(ctx); err != nil {
		return nil, err
	}
	r.record.Waiting = true
	if err := r.prepare(ctx, func() {}); err != nil {
		return nil, err
	}
	if err := r.boot.greet(ctx); err != nil {
		return nil, r.undo(err)
	}
	return r, nil
}

var errNotNeeded = errors.New("nobody needs it")

// discard ends VMMs that wait.
func (d *driver) discard(all []*restoration) {
	for _, r := range all {
		if err := r.undo(errNotNeeded); err != errNotNeeded {
			d.log.Warn("something is left of a VMM that waited for a restore", "uid", r.record.UID, "error", err)
		}
	}
}

// runWaiting is run with a VMM that waits: it is revised for what it is now for.
func (r *restoration) runWaiting(ctx context.Context, recorded func(), w *restoration) error {
	spec := r.record.Spec
	r.record, r.lock, r.steps, r.boot = w.record, w.lock, w.steps, w.boot
	r.record.Spec, r.record.Created, r.record.Waiting = spec, time.Now().Round(0), false
	r.boot.name, r.boot.load = r.name, r.loading()
	if !r.boot.load.pager {
		r.driver.readAhead(r.boot.load)
	}
	if err := r.steps.Do("revise", func() error { return r.revise(ctx) }, nil); err != nil {
		return r.undo(err)
	}
	return r.finish(ctx, recorded)
}

// revise makes of a run that waits one that begins, and the network what the options say. The record on disk is replaced by the one that is staged next: until then it is of one that waits, under a name.
func (r *restoration) revise(ctx context.Context) error {
	d, record, b := r.driver, r.record, r.boot
	if hasNetwork(&record.Spec) && r.options.Network != nil {
		if err := r.steps.Do("ports", func() error { return d.takePorts(ctx, record.UID, record.Spec.Network.Publish) }, func() error { return d.undoPorts(ctx, record) }); err != nil {
			return err
		}
		if err := r.steps.Do("rules", func() error { return r.rewire(ctx) }, nil); err != nil {
			return err
		}
	}
	b.steps = step.Begin(b.verb(), d.options.hook)
	b.state.Started, b.state.State = time.Now().Round(0), microvm.StateRunning
	b.load.describe(&b.state, record)
	return b.lock.WriteRun(b.state)
}

// rewire makes the network of a machine to come what its record says by now.
func (r *restoration) rewire(ctx context.Context) error {
	assignRules(r.record)
	if err := r.driver.publishable(ctx, r.record); err != nil {
		return err
	}
	return r.driver.renewNetwork(ctx, r.record)
}
