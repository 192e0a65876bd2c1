//go:build linux

package firecracker

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/firecracker/api"
	"github.com/tangle-network/microvm-runtime/internal/cgroup"
	"github.com/tangle-network/microvm-runtime/internal/netns"
	"github.com/tangle-network/microvm-runtime/internal/state"
	"github.com/tangle-network/microvm-runtime/internal/step"
	"github.com/tangle-network/microvm-runtime/internal/vmm"
)

// Start boots a created or stopped machine and waits for its agent. The lock is held until the VMM says that the machine runs, so that
// Stop and Destroy can end one whose agent never comes.
func (d *driver) Start(ctx context.Context, uid string, o microvm.StartOptions) error {
	ctx, leave, err := d.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	b, err := d.startVMM(ctx, uid)
	if err != nil || b == nil || !b.record.Agent || o.NoWait {
		return err
	}
	return d.awaitAgent(ctx, b, o)
}

// startVMM returns nil when the machine runs already.
func (d *driver) startVMM(ctx context.Context, uid string) (b *boot, err error) {
	err = d.withMachine(ctx, uid, func(ctx context.Context, lock *state.Lock, m *machine) error {
		switch m.state {
		case microvm.StateRunning:
			return nil
		case microvm.StateCreated, microvm.StateStopped:
		default:
			return stateError("start", m.state)
		}
		p, err := d.booting(ctx)
		if err != nil {
			return err
		}
		if err := p.supports(planOf(&m.record)); err != nil { // it may be another than at Create
			return err
		}
		b = &boot{driver: d, lock: lock, record: &m.record, name: m.name, place: d.place(&m.record), program: p, exit: m.exit}
		b.before, _ = d.state.Begun(uid)
		if err := b.run(ctx); err == nil || !b.unsaid {
			return err
		}
		return b.bootAgain(ctx)
	})
	return b, err
}

// boot is one start of one machine.
type boot struct {
	driver  *driver
	lock    *state.Lock
	record  *state.Record
	name    string
	place   place
	program program       // what the run is on; told by load where there is one
	before  time.Time     // when the run before began; zero when there was none
	exit    *microvm.Exit // how the run before ended
	load    *loading      // the snapshot that it begins with; nil where it boots

	patient bool // the VMM is not asked before it has booted
	unsaid  bool // the VMM ended by itself and did not say why

	steps    *step.Sequence
	contents contents
	state    state.Run
	leaf     *cgroup.Leaf
	network  *netns.Namespace // nil where the machine has none
	process  *vmm.Process
	output   *output
	client   *api.Client // of a VMM that waits, or is asked
}

// run is the sequence of Start: from nothing to a VMM that says that the machine runs. A failure undoes it and has the VMM's own words.
func (b *boot) run(ctx context.Context) error {
	if err := b.prepare(ctx); err != nil {
		return err
	}
	return b.complete(ctx)
}

// prepare is the sequence up to a VMM that lives, and boots, or, where it is to load a snapshot, waits for that.
func (b *boot) prepare(ctx context.Context) (err error) {
	b.steps = step.Begin(b.verb(), b.driver.options.hook)
	b.state = state.Run{State: microvm.StateRunning, Started: time.Now().Round(0), Starter: b.driver.self}
	if b.load != nil {
		b.program = b.load.program
		b.load.describe(&b.state, b.record)
	}
	b.state.Firecracker = b.program.version.String()
	defer b.closeOutput()
	defer b.closeLeaf()
	defer func() { b.network.Close() }()
	defer b.steps.End(&err)

	if err := b.steps.Do("record", b.begin, b.unbegin); err != nil {
		return err
	}
	if err := b.steps.Do("console", b.openOutput, nil); err != nil {
		return err
	}
	if err := b.steps.Do("place", func() error { return b.makePlace(ctx) }, b.place.remove); err != nil {
		return err
	}
	if b.driver.slice != nil {
		if err := b.steps.Do("cgroup", b.makeLeaf, b.removeLeaf); err != nil {
			return err
		}
	}
	if hasNetwork(&b.record.Spec) {
		if err := b.steps.Do("network", func() error { return b.enterNetwork(ctx) }, nil); err != nil {
			return err
		}
	}
	if err := b.steps.Do("spawn", b.spawn, b.kill); err != nil {
		return err
	}
	if err := b.steps.Do("identity", b.identify, b.unwatch); err != nil {
		return err
	}
	if b.state.Pager {
		if err := b.steps.Do("pager", func() error { return b.driver.startPager(ctx, b.record, &b.state) }, b.endPager); err != nil {
			return err
		}
	}
	return nil
}

// complete is the rest: the VMM says that the machine runs.
func (b *boot) complete(ctx context.Context) (err error) {
	defer b.steps.End(&err)

	if err := b.steps.Do("vmm", func() error { return b.bringUp(ctx) }, nil); err != nil {
		return b.driver.explain(b.record, err)
	}
	return b.steps.Do("commit", b.commit, b.uncommit)
}

// begin records that a run begins, before anything of it exists. What the run before left is kept until the commit.
func (b *boot) begin() error {
	return errors.Join(b.driver.makeVolatile(b.record.UID), b.lock.RemoveRun(), b.lock.WriteRun(b.state))
}

func (b *boot) unbegin() error { return b.lock.RemoveRun() }

// makePlace makes the place with what the run begins with: a configuration file, or a snapshot.
func (b *boot) makePlace(ctx context.Context) (err error) {
	b.contents = contents{program: b.program, shared: sharedFiles(b.record)}
	if b.load != nil {
		b.contents.shared[filepath.Base(loadedState)] = b.load.state
		if !b.load.pager {
			b.contents.shared[filepath.Base(loadedMemory)] = b.load.memory
			if !b.record.Waiting { // else when it is taken: until then nobody needs it
				b.driver.readAhead(b.load)
			}
		}
	} else if b.contents.config, err = planOf(b.record).configFile(); err != nil {
		return err
	}
	return b.place.make(ctx, b.contents)
}

// bringUp makes the VMM run the machine.
func (b *boot) bringUp(ctx context.Context) error {
	if b.load != nil {
		return b.loadSnapshot(ctx)
	}
	return b.awaitVMM(ctx)
}

func (b *boot) verb() string {
	if b.load != nil {
		return "load"
	}
	return "start"
}

func (b *boot) makeLeaf() (err error) {
	b.leaf, err = b.driver.slice.NewLeaf(b.record.UID)
	return err
}

func (b *boot) removeLeaf() error {
	if b.leaf == nil {
		return nil
	}
	return b.leaf.Remove()
}

// closeLeaf releases the descriptor that the VMM was born by. The leaf stays.
func (b *boot) closeLeaf() {
	if b.leaf != nil {
		b.leaf.Close()
	}
}

func (b *boot) enterNetwork(ctx context.Context) (err error) {
	b.network, err = b.driver.enterNetwork(ctx, b.record)
	return err
}

func (b *boot) spawn() (err error) {
	command := b.place.command(b.contents)
	command.Cgroup, command.Network = b.leaf, b.network
	command.Stdout, command.Stderr = b.output.console, b.output.stderr
	b.process, err = vmm.Start(command)
	return err
}

// kill is undone work: the VMM is ours, so its end is waited for.
func (b *boot) kill() error {
	if b.process == nil {
		return nil
	}
	if err := b.process.Kill(); err != nil {
		return err
	}
	_, err := b.process.Wait(context.Background())
	err = errors.Join(err, b.process.Close())
	b.process = nil // who makes a machine of the run takes it down too
	return err
}

// identify records which process the VMM is, so that any other process can take over from here, and begins to watch it: the guest writes to its
// console before the VMM answers.
func (b *boot) identify() error {
	identity := b.process.Identity()
	b.state.Process = &identity
	if err := b.lock.WriteRun(b.state); err != nil {
		return err
	}
	_, err := b.driver.watch(b.record.UID, b.process)
	return err
}

func (b *boot) unwatch() error {
	b.driver.unwatch(b.record.UID)
	return nil
}

// commit says that the machine runs: from here on the run can only be ended.
func (b *boot) commit() error {
	var timeline []microvm.Mark
	for _, span := range b.steps.Spans() {
		timeline = append(timeline, microvm.Mark(span))
	}
	if err := b.lock.Commit(timeline); err != nil || b.load != nil { // a restore notes, and tells, for itself
		return err
	}
	if err := b.lock.Begin(b.state.Started); err != nil {
		return err
	}
	b.driver.tell(b.record, b.name, microvm.EventStarted, nil)
	return nil
}

// uncommit makes the machine what it was before.
func (b *boot) uncommit() error { return b.lock.Unbegin(b.before, b.exit) }

// openOutput makes the files that the VMM writes to: the guest's console, and its own errors apart from it.
func (b *boot) openOutput() (err error) {
	b.output, err = openOutput(b.driver.state.Volatile(b.record.UID))
	return err
}

func (b *boot) closeOutput() {
	if b.output != nil {
		b.output.close()
	}
}

// explain adds the VMM's own words to why it does not run.
func (d *driver) explain(record *state.Record, err error) error {
	if words := d.lastWords(record); words != "" {
		return fmt.Errorf("%w; the VMM's last words were %q", err, words)
	}
	return err
}

// same says whether run is the one that b began.
func (b *boot) same(run *state.Run) bool {
	return run != nil && run.Process != nil && *run.Process == *b.state.Process
}
