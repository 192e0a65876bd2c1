//go:build linux

package firecracker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/disk"
	"github.com/tangle-network/microvm-runtime/internal/imagestore"
	"github.com/tangle-network/microvm-runtime/internal/state"
	"github.com/tangle-network/microvm-runtime/internal/step"
)

// Create makes a machine's record, name, lease and disk. No process is started.
func (d *driver) Create(ctx context.Context, name string, spec microvm.Spec) (uid string, err error) {
	ctx, leave, err := d.enter(ctx)
	if err != nil {
		return "", err
	}
	defer leave()
	drop, err := d.store.Hold(ctx) // what is imported is needed by no record yet, and what disks are made of never is
	if err != nil {
		return "", err
	}
	defer drop()
	record, err := d.resolve(ctx, spec)
	if err != nil {
		return "", err
	}
	if d.state.Taken(name) { // Bind decides; this spares the work.
		return "", fmt.Errorf("name %q: %w", name, microvm.ErrExists)
	}
	release, err := d.admit(ctx, record)
	if err != nil {
		return "", err
	}
	defer release()
	return record.UID, d.create(ctx, name, record, release)
}

// create runs the steps. The name is the commit point: what stands under a uid without a name belongs to nobody. Recorded is called once the machine counts.
func (d *driver) create(ctx context.Context, name string, record *state.Record, recorded func()) (err error) {
	lock, err := d.state.Create(ctx, record.UID)
	if err != nil {
		return err
	}
	defer lock.Unlock()
	defer func() {
		if err != nil {
			err = errors.Join(err, lock.Remove())
		}
	}()
	steps := step.Begin("create", d.options.hook)
	defer steps.End(&err)

	if err := d.acquire(ctx, steps, lock, name, record, recorded, func() error { return d.makeDisk(ctx, record) }); err != nil {
		return err
	}
	record.Phase = state.PhaseCreated
	if err := steps.Do("commit", func() error { return lock.WriteRecord(*record) }, nil); err != nil {
		return err
	}
	d.tell(record, name, microvm.EventCreated, nil)
	return nil
}

// acquire takes what a machine has from its creation to its end, and writes it down first. Nothing of it is flushed before the record says that it is there.
func (d *driver) acquire(ctx context.Context, steps *step.Sequence, lock *state.Lock, name string, record *state.Record, recorded func(), makeDisk func() error) error {
	if err := steps.Do("record", func() error { return lock.Draft(*record) }, nil); err != nil {
		return err
	}
	recorded()
	if err := steps.Do("name", func() error { return lock.Bind(name) }, lock.Unbind); err != nil {
		return err
	}
	return d.equip(ctx, steps, record, makeDisk)
}

// equip takes all that a machine has beside its record and its name.
func (d *driver) equip(ctx context.Context, steps *step.Sequence, record *state.Record, makeDisk func() error) error {
	if record.Jailed || hasNetwork(&record.Spec) {
		if err := steps.Do("slot", func() error { return d.lease(ctx, record) }, func() error { return d.unlease(ctx, record) }); err != nil {
			return err
		}
	}
	if hasNetwork(&record.Spec) {
		if err := steps.Do("ports", func() error { return d.takePorts(ctx, record.UID, record.Spec.Network.Publish) }, func() error { return d.undoPorts(ctx, record) }); err != nil {
			return err
		}
		if err := steps.Do("network", func() error { return d.makeNetwork(ctx, record) }, func() error { return d.undoNetwork(ctx, record) }); err != nil {
			return err
		}
	}
	if len(record.Spec.Drives) > 0 {
		if err := steps.Do("drives", func() error { return d.lendDrives(record) }, func() error { return d.returnDrives(record.UID) }); err != nil {
			return err
		}
	}
	if hasDisk(&record.Spec) {
		if err := steps.Do("disk", makeDisk, nil); err != nil {
			return err
		}
	}
	return context.Cause(ctx)
}

// resolve looks at the host: it fills the spec's defaults in and imports what the machine boots from into the store.
func (d *driver) resolve(ctx context.Context, spec microvm.Spec) (*state.Record, error) {
	o := d.options
	setDefault(&spec.VCPUs, o.VCPUs)
	setDefault(&spec.MemoryMiB, o.MemoryMiB)
	setDefault(&spec.Kernel, o.Kernel)
	if spec.Image == "" && spec.Rootfs == "" && !spec.Diskless {
		spec.Image = o.Image
		if spec.Image == "" {
			spec.Rootfs = o.Rootfs
		}
	}
	if spec.Image != "" && !spec.LayerInMemory {
		setDefault(&spec.LayerMiB, o.LayerMiB)
	}
	if err := spec.Validate(); err != nil {
		return nil, err
	}
	if err := o.resolveNames(&spec); err != nil {
		return nil, err
	}
	if err := checkGrowth(&spec); err != nil {
		return nil, err
	}
	if spec.Network == nil {
		spec.Network = &microvm.Network{None: o.Bare || o.NoNetwork}
	}
	record := &state.Record{UID: state.NewUID(), Phase: state.PhaseCreating, Created: time.Now().Round(0), Spec: spec, Agent: spec.Image != "", Jailed: !o.Bare}
	p, err := d.booting(ctx)
	if err != nil {
		return nil, err
	}
	if err := p.supports(planOf(record)); err != nil {
		return nil, err
	}
	if err := d.importImage(ctx, record); err != nil {
		return nil, err
	}
	return record, d.importFiles(ctx, record)
}

// importImage makes the base of an image with a name one of the store's files too: by a link, where it can, since nobody changes it.
func (d *driver) importImage(ctx context.Context, record *state.Record) error {
	if record.Spec.Image == "" || filepath.IsAbs(record.Spec.Image) {
		return nil
	}
	entry, err := imagestore.Lookup(filepath.Join(d.options.StateDir, "images"), record.Spec.Image)
	if errors.Is(err, microvm.ErrInvalid) {
		return fmt.Errorf("Spec.Image: %w", err)
	}
	if err != nil {
		return err
	}
	stored, err := d.store.Make(ctx, "image\x00"+entry.Digest+"\x00"+entry.SHA256, func(temp string) error { return entry.Link(ctx, temp) })
	if err != nil {
		return err
	}
	record.Files.Base = stored.Path
	record.Image = &microvm.ImageConfig{
		Entrypoint: entry.Config.Entrypoint, Cmd: entry.Config.Cmd, Env: entry.Config.Env, User: entry.Config.User, WorkingDir: entry.Config.WorkingDir,
	}
	return nil
}

func (d *driver) importFiles(ctx context.Context, record *state.Record) (err error) {
	spec := &record.Spec
	files := record.Files
	for _, file := range []struct {
		field, path string
		to          *string
	}{
		{"Spec.Kernel", spec.Kernel, &files.Kernel},
		{"Spec.Initrd", spec.Initrd, &files.Initrd},
		{"Spec.Image", spec.Image, &files.Base},
		{"Spec.Rootfs", spec.Rootfs, &files.Base},
	} {
		if file.path == "" || *file.to != "" {
			continue
		}
		stored, err := d.store.Import(ctx, file.path)
		if errors.Is(err, microvm.ErrInvalid) {
			return fmt.Errorf("%s: %w", file.field, err)
		}
		if err != nil {
			return fmt.Errorf("import %s: %w", file.path, err)
		}
		*file.to = stored.Path
	}
	if spec.RootfsMiB != 0 {
		if files.Base, err = d.grown(ctx, files.Base, spec.RootfsMiB); err != nil {
			return err
		}
	}
	if record.Agent && spec.Initrd == "" {
		initrd, err := d.initramfs(ctx, files.Kernel, spec.Kernel)
		if err != nil {
			return err
		}
		files.Initrd = initrd
	}
	if files.Drives, err = d.importDrives(ctx, spec.Drives); err != nil {
		return err
	}
	record.Files = files
	return nil
}

// lease takes a slot, whose user the machine is jailed as.
func (d *driver) lease(ctx context.Context, record *state.Record) error {
	slot, err := d.slots.Lease(ctx, record.UID)
	if err != nil {
		return err
	}
	record.Slot = slot.Number
	if record.Jailed {
		record.JailUID, record.JailGID = slot.UID, slot.GID
	}
	return nil
}

// undoPatience is how long what is undone waits for another process. The context that it is undone for has ended.
const undoPatience = 2 * time.Second

func (d *driver) unlease(ctx context.Context, record *state.Record) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoPatience)
	defer cancel()
	return d.slots.Release(ctx, record.UID)
}

// makeDisk makes the machine's own disk: an empty layer, or a private copy of the root file system.
func (d *driver) makeDisk(ctx context.Context, record *state.Record) error {
	source := record.Files.Base
	if record.Agent {
		empty, err := d.emptyLayer(ctx, record.Spec.LayerMiB)
		if err != nil {
			return err
		}
		source = empty
	}
	if err := d.cloneDisk(ctx, record, source); err != nil {
		return err
	}
	return disk.Sync(d.diskPath(record.UID)) // the record is about to say that it is there
}

// cloneDisk makes the machine's own disk a private copy of another. It is not flushed.
func (d *driver) cloneDisk(ctx context.Context, record *state.Record, source string) error {
	path := d.diskPath(record.UID)
	cloned, err := disk.Clone(ctx, path, source)
	if err != nil {
		return err
	}
	record.Copied = cloned.Copied
	if err := os.Chmod(path, 0o600); err != nil {
		return err
	}
	if record.Jailed {
		uid, gid := d.jailUser(record)
		if err := os.Chown(path, uid, gid); err != nil {
			return err
		}
	}
	return nil
}

// diskPath returns where the machine's own disk is, which no VMM can reach by name.
func (d *driver) diskPath(uid string) string {
	return filepath.Join(d.state.Machine(uid), "layer")
}

// hasDisk says whether a machine has a disk of its own.
func hasDisk(spec *microvm.Spec) bool { return spec.RootfsWritable || spec.LayerMiB > 0 }

// diskMiB returns the size of the machine's own disk. The store's copy of a root file system is asked: the user's may be gone.
func diskMiB(record *state.Record) int {
	if record.Spec.RootfsWritable {
		if info, err := os.Stat(record.Files.Base); err == nil {
			return int((info.Size() + 1<<20 - 1) >> 20)
		}
	}
	return record.Spec.LayerMiB
}
