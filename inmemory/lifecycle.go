package inmemory

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
)

func (d *driver) Create(ctx context.Context, name string, spec microvm.Spec) (string, error) {
	if err := d.enter(ctx, "create", name); err != nil {
		return "", err
	}
	defer d.mu.Unlock()
	m, err := d.create(name, spec)
	if err != nil {
		return "", err
	}
	return m.info.UID, nil
}

// create does it under the lock.
func (d *driver) create(name string, spec microvm.Spec) (*machine, error) {
	if d.names[name] != "" {
		return nil, fmt.Errorf("name %q: %w", name, microvm.ErrExists)
	}
	if most := d.options.MaxVMs; most > 0 && len(d.machines) >= most {
		return nil, fmt.Errorf("%w: MaxVMs %d", microvm.ErrExhausted, most)
	}
	if err := errors.Join(d.checkDrives(spec.Drives), d.checkPorts("", spec.Network)); err != nil {
		return nil, err
	}
	if spec.VCPUs == 0 {
		spec.VCPUs = 1
	}
	if spec.MemoryMiB == 0 {
		spec.MemoryMiB = 256
	}
	if spec.Network == nil {
		spec.Network = &microvm.Network{}
	}
	uid := strings.ToLower(rand.Text()[:12])
	m := &machine{info: microvm.Info{UID: uid, Name: name, State: microvm.StateCreated, Spec: spec, Created: time.Now(), Network: d.address(spec.Network)}}
	if d.machines == nil {
		d.machines, d.names = map[string]*machine{}, map[string]string{}
	}
	d.machines[uid], d.names[name] = m, uid
	d.tell(m, microvm.EventCreated, nil)
	return m, nil
}

// checkDrives refuses a writable drive that another machine has. A drive is known by its path here: nothing is at it.
func (d *driver) checkDrives(drives []microvm.Drive) error {
	for _, m := range d.machines {
		for _, had := range m.info.Spec.Drives {
			for _, wanted := range drives {
				if had.Path == wanted.Path && !had.ReadOnly && !wanted.ReadOnly {
					return fmt.Errorf("%w: %s is lent to %s (machine %q)", microvm.ErrBusy, had.Path, m.info.UID, m.info.Name)
				}
			}
		}
	}
	return nil
}

func (d *driver) Resolve(ctx context.Context, ref string) (string, error) {
	if err := d.enter(ctx, "resolve", ref); err != nil {
		return "", err
	}
	defer d.mu.Unlock()
	if uid := d.names[ref]; uid != "" {
		return uid, nil
	}
	if d.machines[ref] != nil {
		return ref, nil
	}
	return "", fmt.Errorf("%q: %w", ref, microvm.ErrNotFound)
}

func (d *driver) Info(ctx context.Context, uid string) (microvm.Info, error) {
	m, err := d.find(ctx, "info", uid)
	if err != nil {
		return microvm.Info{}, err
	}
	defer d.mu.Unlock()
	return m.copy(), nil
}

// copy shares nothing with the machine.
func (m *machine) copy() microvm.Info {
	info := m.info
	info.Spec = info.Spec.Copy()
	if info.Exit != nil {
		exit := *info.Exit
		info.Exit = &exit
	}
	return info
}

func (d *driver) List(ctx context.Context) ([]microvm.Info, error) {
	if err := d.enter(ctx, "list", ""); err != nil {
		return nil, err
	}
	defer d.mu.Unlock()
	infos := make([]microvm.Info, 0, len(d.machines))
	for _, m := range d.machines {
		infos = append(infos, m.copy())
	}
	slices.SortFunc(infos, func(a, b microvm.Info) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.UID, b.UID)) })
	return infos, nil
}

func (d *driver) Start(ctx context.Context, uid string, _ microvm.StartOptions) error {
	m, err := d.find(ctx, "start", uid)
	if err != nil {
		return err
	}
	defer d.mu.Unlock()
	switch m.info.State {
	case microvm.StateRunning:
		return nil
	case microvm.StateCreated, microvm.StateStopped:
	default:
		return stateError("start", m.info.State)
	}
	d.start(m)
	return nil
}

// start does it under the lock.
func (s *Store) start(m *machine) {
	m.info.State, m.info.Exit, m.info.Started = microvm.StateRunning, nil, time.Now()
	m.console, m.ended, m.ports = []byte(Marker), make(chan struct{}), map[uint32]*listener{}
	s.tell(m, microvm.EventStarted, nil)
}

func (d *driver) Stop(ctx context.Context, uid string, o microvm.StopOptions) (microvm.Exit, error) {
	m, err := d.find(ctx, "stop", uid)
	if err != nil {
		return microvm.Exit{}, err
	}
	defer d.mu.Unlock()
	switch {
	case m.info.State == microvm.StateStopped:
		return *m.info.Exit, nil
	case !m.runs():
		return microvm.Exit{}, stateError("stop", m.info.State)
	}
	exit := microvm.Exit{Reason: microvm.ReasonStopped, Evidence: []string{"stopped was asked for"}}
	if o.Force || m.info.Held {
		exit = microvm.Exit{Reason: microvm.ReasonForced, Code: -1, Signal: 9, Evidence: []string{"forced was asked for"}}
	}
	d.end(m, exit)
	return *m.info.Exit, nil
}

func (d *driver) Wait(ctx context.Context, uid string) (microvm.Exit, error) {
	m, err := d.find(ctx, "wait", uid)
	if err != nil {
		return microvm.Exit{}, err
	}
	defer d.mu.Unlock()
	for {
		switch {
		case d.machines[uid] == nil:
			return microvm.Exit{}, fmt.Errorf("%s: %w", uid, microvm.ErrNotFound)
		case d.shut:
			return microvm.Exit{}, microvm.ErrClosed
		case m.info.State == microvm.StateStopped:
			return *m.info.Exit, nil
		case !m.runs():
			return microvm.Exit{}, stateError("wait for", m.info.State)
		}
		ended := m.ended
		d.mu.Unlock()
		select {
		case <-ended:
		case <-d.closed:
		case <-ctx.Done():
		}
		d.mu.Lock()
		if err := context.Cause(ctx); err != nil {
			return microvm.Exit{}, err
		}
	}
}

func (d *driver) Destroy(ctx context.Context, uid string) error {
	m, err := d.find(ctx, "destroy", uid)
	if err != nil {
		return err
	}
	defer d.mu.Unlock()
	d.destroy(m)
	return nil
}

// destroy does it under the lock.
func (s *Store) destroy(m *machine) {
	if m.runs() {
		s.end(m, microvm.Exit{Reason: microvm.ReasonForced, Code: -1, Signal: 9})
	}
	delete(s.machines, m.info.UID)
	delete(s.names, m.info.Name)
	s.tell(m, microvm.EventDestroyed, nil)
}

func (d *driver) Pause(ctx context.Context, uid string) error {
	return d.turn(ctx, uid, "pause", microvm.StateRunning, microvm.StatePaused, microvm.EventPaused)
}

func (d *driver) Resume(ctx context.Context, uid string) error {
	return d.turn(ctx, uid, "resume", microvm.StatePaused, microvm.StateRunning, microvm.EventResumed)
}

func (d *driver) turn(ctx context.Context, uid, verb string, from, to microvm.State, what microvm.EventType) error {
	m, err := d.find(ctx, verb, uid)
	if err != nil {
		return err
	}
	defer d.mu.Unlock()
	if m.info.Held {
		return fmt.Errorf("%w: can't %s a machine that is held", microvm.ErrState, verb)
	}
	switch m.info.State {
	case to:
	case from:
		m.info.State = to
		d.tell(m, what, nil)
	default:
		return stateError(verb, m.info.State)
	}
	return nil
}

func (d *driver) Rename(ctx context.Context, uid, name string) error {
	m, err := d.find(ctx, "rename", uid)
	if err != nil {
		return err
	}
	defer d.mu.Unlock()
	switch {
	case m.info.Held:
		return fmt.Errorf("%w: can't rename a machine that is held", microvm.ErrState)
	case m.info.Name == name:
		return nil
	case d.names[name] != "":
		return fmt.Errorf("name %q: %w", name, microvm.ErrExists)
	}
	delete(d.names, m.info.Name)
	m.info.Name, d.names[name] = name, uid
	d.tell(m, microvm.EventRenamed, nil)
	return nil
}

// Trim has nothing to give back.
func (d *driver) Trim(ctx context.Context, uid string) (int64, error) {
	m, err := d.find(ctx, "trim", uid)
	if err != nil {
		return 0, err
	}
	defer d.mu.Unlock()
	if m.runs() {
		return 0, stateError("trim", m.info.State)
	}
	return 0, nil
}

// Recover adopts what runs. Nothing is ever interrupted here.
func (d *driver) Recover(ctx context.Context, _ microvm.RecoverOptions) (microvm.Report, error) {
	if err := d.enter(ctx, "recover", ""); err != nil {
		return nil, err
	}
	defer d.mu.Unlock()
	report := microvm.Report{}
	for uid, m := range d.machines {
		if m.runs() {
			report = append(report, microvm.Action{Kind: microvm.ActionAdopted, UID: uid, Name: m.info.Name, What: "run"})
		}
	}
	report.Sort()
	return report, nil
}
