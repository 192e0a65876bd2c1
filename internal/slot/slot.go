//go:build linux

// Package slot leases numbers to machines. A slot is a number; it fixes the user and group that a machine is jailed as.
//
// There are only two types: a [Pool] of numbers, which any number of processes may use at once, and a [Slot].
//
//	DIR/lease/NUMBER   symbolic link whose text is the owner; made exclusively
//	DIR/owner/OWNER    symbolic link whose text is the number
//	DIR/free           numbers that were returned, the oldest first, and when
//	DIR/lock           held while a number is taken or returned
//
// # Caveats
//
// A lease ends only by Release: that its owner is gone does not end it.
package slot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/disk"
	"github.com/tangle-network/microvm-runtime/internal/flock"
	"github.com/tangle-network/microvm-runtime/internal/tidy"
)

// Range is which users and groups there are.
type Range struct {
	FirstUID int // Of slot 0; the group has the same number.
	Count    int
}

// Slot is one number, and what it fixes.
type Slot struct {
	Number   int
	UID, GID int
}

// Pool is the numbers of one state directory.
type Pool struct {
	dir   string
	users Range
}

// Open makes the pool's directories where they are missing.
func Open(dir string, users Range) (*Pool, error) {
	for _, sub := range []string{"", "lease", "owner"} {
		if err := disk.MakeDir(filepath.Join(dir, sub)); err != nil {
			return nil, err
		}
	}
	return &Pool{dir: dir, users: users}, nil
}

// Tree says what is ours in the pool's directory.
func Tree(dir string) tidy.Tree {
	link := func(dir string, entry fs.DirEntry) bool { return entry.Type() == fs.ModeSymlink }
	files := func(_ string, entry fs.DirEntry) bool {
		return slices.Contains([]string{"free", "free.new", "lock"}, entry.Name())
	}
	return tidy.Tree{Dir: dir, Ours: files, Below: []tidy.Tree{{Dir: "lease", Ours: link}, {Dir: "owner", Ours: link}}}
}

// Slot returns what a number fixes.
func (p *Pool) Slot(number int) Slot {
	return Slot{Number: number, UID: p.users.FirstUID + number, GID: p.users.FirstUID + number}
}

// Lease returns the owner's slot: the one that it has, else the one that was returned longest ago, if it has rested, else one that was never used, else the one that has rested longest.
// microvm.ErrExhausted when there is none.
func (p *Pool) Lease(ctx context.Context, owner string) (Slot, error) {
	unlock, err := p.lock(ctx)
	if err != nil {
		return Slot{}, err
	}
	defer unlock()
	if number, err := p.leased(owner); err == nil {
		return p.Slot(number), nil
	}
	number, err := p.next()
	if err != nil {
		return Slot{}, err
	}
	// The owner's link first: one without a lease is harmless, a lease without an owner's link would never be returned.
	if err := os.Symlink(strconv.Itoa(number), p.owner(owner)); err != nil && !errors.Is(err, os.ErrExist) {
		return Slot{}, err
	}
	if err := os.Symlink(owner, p.lease(number)); err != nil {
		return Slot{}, errors.Join(err, os.Remove(p.owner(owner)))
	}
	for _, sub := range []string{"owner", "lease"} { // else, after a power cut, two machines could have one user
		if err := disk.SyncDir(filepath.Join(p.dir, sub)); err != nil {
			return Slot{}, err
		}
	}
	return p.Slot(number), nil
}

// Leased returns the number that the owner has, os.ErrNotExist when it has none.
func (p *Pool) Leased(owner string) (int, error) {
	text, err := os.Readlink(p.owner(owner))
	if err != nil {
		return 0, err
	}
	number, err := strconv.Atoi(text)
	if err != nil {
		return 0, err
	}
	if holder, err := os.Readlink(p.lease(number)); err != nil || holder != owner {
		return 0, os.ErrNotExist
	}
	return number, nil
}

// leased is Leased under the lock: an owner's link without the lease, which a killed process leaves, is removed.
func (p *Pool) leased(owner string) (int, error) {
	number, err := p.Leased(owner)
	if errors.Is(err, os.ErrNotExist) {
		err = errors.Join(err, ignoreMissing(os.Remove(p.owner(owner))))
	}
	return number, err
}

func ignoreMissing(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// Coming returns numbers that the next leases may have, in order, at most so many. It takes nothing.
func (p *Pool) Coming(count int) ([]int, error) {
	free, high, err := p.readFree()
	if err != nil {
		return nil, err
	}
	var coming []int
	for _, one := range free {
		if len(coming) == count || time.Since(one.returned) < rest {
			break
		}
		coming = append(coming, one.number)
	}
	for ; len(coming) < count && high < p.users.Count; high++ {
		coming = append(coming, high)
	}
	return coming, nil
}

// rest is how long a number that was returned is not given to another owner, as long as there are others: longer than the time-out of UDP flows, so that what is sent to the owner
// before comes to nobody (nf_conntrack_udp_timeout_stream).
const rest = 3 * time.Minute

// next takes a number that nobody has.
func (p *Pool) next() (int, error) {
	free, high, err := p.readFree()
	if err != nil {
		return 0, err
	}
	if len(free) > 0 && time.Since(free[0].returned) >= rest {
		if number, ok, err := p.takeFree(free, high); ok || err != nil {
			return number, err
		}
	}
	for ; high < p.users.Count; high++ {
		// The list is not synced: after a power cut it may be older than the leases.
		if _, err := os.Lstat(p.lease(high)); errors.Is(err, os.ErrNotExist) {
			return high, p.writeFree(free, high+1)
		}
	}
	if number, ok, err := p.takeFree(free, high); ok || err != nil {
		return number, err
	}
	for number := range p.users.Count { // one that a killed process had taken and not yet leased, or that the list had no space for
		if _, err := os.Lstat(p.lease(number)); errors.Is(err, os.ErrNotExist) {
			return number, nil
		}
	}
	return 0, fmt.Errorf("%w: all %d slots are leased (Options.UIDCount)", microvm.ErrExhausted, p.users.Count)
}

// takeFree takes the number that was returned longest ago from the list.
func (p *Pool) takeFree(free []returned, high int) (number int, ok bool, err error) {
	for i, one := range free {
		if one.number >= p.users.Count {
			continue
		}
		if _, err := os.Lstat(p.lease(one.number)); errors.Is(err, os.ErrNotExist) {
			return one.number, true, p.writeFree(slices.Delete(free, i, i+1), high)
		}
	}
	return 0, false, nil
}

// Release returns the owner's slot, if it has one. Whatever used the slot must be gone.
func (p *Pool) Release(ctx context.Context, owner string) error {
	unlock, err := p.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	number, err := p.leased(owner)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	free, high, err := p.readFree()
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(free, func(r returned) bool { return r.number == number }) {
		free = append(free, returned{number, time.Now()})
	}
	// Without space for the list the number is found again by looking: to return something must not need space.
	if err := p.writeFree(free, high); err != nil && !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EDQUOT) {
		return err
	}
	return errors.Join(os.Remove(p.lease(number)), os.Remove(p.owner(owner)))
}

// Leases returns the owner of each leased number.
func (p *Pool) Leases() (map[int]string, error) {
	entries, err := os.ReadDir(filepath.Join(p.dir, "lease"))
	if err != nil {
		return nil, err
	}
	leases := make(map[int]string, len(entries))
	for _, entry := range entries {
		number, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		if owner, err := os.Readlink(p.lease(number)); err == nil {
			leases[number] = owner
		}
	}
	return leases, nil
}

// returned is a number that nobody has, and since when.
type returned struct {
	number   int
	returned time.Time
}

// readFree returns the numbers that were returned, and the first that was never taken. The file is "HIGH\nNUMBER@SECONDS NUMBER@SECONDS …\n", with seconds since 1970; in files of before there
// are none.
func (p *Pool) readFree() (free []returned, high int, err error) {
	text, err := os.ReadFile(filepath.Join(p.dir, "free"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	for i, field := range strings.Fields(string(text)) {
		first, since, _ := strings.Cut(field, "@")
		number, err := strconv.Atoi(first)
		if err != nil {
			return nil, 0, fmt.Errorf("%s/free: %w", p.dir, err)
		}
		seconds, _ := strconv.ParseInt(since, 10, 64) // a clock that was set back makes it rest longer, at most until there are no others
		if i == 0 {
			high = number
		} else {
			free = append(free, returned{number, time.Unix(seconds, 0)})
		}
	}
	return free, high, nil
}

func (p *Pool) writeFree(free []returned, high int) error {
	fields := []string{strconv.Itoa(high)}
	for _, one := range free {
		fields = append(fields, fmt.Sprintf("%d@%d", one.number, one.returned.Unix()))
	}
	path := filepath.Join(p.dir, "free")
	if err := os.WriteFile(path+".new", []byte(strings.Join(fields, " ")+"\n"), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// lock waits for who takes or returns a number; each of these is the work of a moment.
func (p *Pool) lock(ctx context.Context) (unlock func(), err error) {
	f, err := flock.Lock(ctx, filepath.Join(p.dir, "lock"))
	if err != nil {
		return nil, err
	}
	return func() { f.Close() }, nil
}

func (p *Pool) lease(number int) string { return filepath.Join(p.dir, "lease", strconv.Itoa(number)) }

func (p *Pool) owner(owner string) string { return filepath.Join(p.dir, "owner", owner) }
