package slot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
)

func pool(t *testing.T, dir string, count int) *Pool {
	t.Helper()
	p, err := Open(dir, Range{FirstUID: 100_000, Count: count})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func lease(t *testing.T, p *Pool, owner string) int {
	t.Helper()
	s, err := p.Lease(context.Background(), owner)
	if err != nil {
		t.Fatalf("lease %s: %v", owner, err)
	}
	if s.UID != 100_000+s.Number || s.GID != s.UID {
		t.Errorf("slot %+v: wrong user or group", s)
	}
	return s.Number
}

func TestLeaseIsIdempotentAndExhausts(t *testing.T) {
	p := pool(t, t.TempDir(), 2)
	a, b := lease(t, p, "a"), lease(t, p, "b")
	if a == b || lease(t, p, "a") != a {
		t.Fatalf("a has %d, b has %d", a, b)
	}
	if _, err := p.Lease(context.Background(), "c"); !errors.Is(err, microvm.ErrExhausted) {
		t.Fatalf("third of two slots: %v", err)
	}
	if err := errors.Join(p.Release(context.Background(), "a"), p.Release(context.Background(), "a")); err != nil {
		t.Fatal(err)
	}
	if got := lease(t, p, "c"); got != a {
		t.Errorf("c got %d, not the returned %d", got, a)
	}
}

func TestOldestReturnedFirst(t *testing.T) {
	p := pool(t, t.TempDir(), 3)
	numbers := map[string]int{}
	for _, owner := range []string{"a", "b", "c"} {
		numbers[owner] = lease(t, p, owner)
	}
	for _, owner := range []string{"b", "c", "a"} {
		if err := p.Release(context.Background(), owner); err != nil {
			t.Fatal(err)
		}
	}
	for i, was := range []string{"b", "c", "a"} {
		if got := lease(t, p, fmt.Sprint("new", i)); got != numbers[was] {
			t.Errorf("lease %d: got %d, want %d", i, got, numbers[was])
		}
	}
}

// Two pools on one directory stand for two processes: the lock file is opened anew each time.
func TestConcurrentLeasesAreDistinct(t *testing.T) {
	dir := t.TempDir()
	pools := []*Pool{pool(t, dir, 64), pool(t, dir, 64)}
	var wait sync.WaitGroup
	for i := range 64 {
		wait.Go(func() {
			if _, err := pools[i%2].Lease(context.Background(), fmt.Sprint("vm", i)); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	if leases, err := pools[0].Leases(); err != nil || len(leases) != 64 {
		t.Errorf("%d leases, %v", len(leases), err)
	}
}

// What a killed process, or a power cut, may leave behind.
func TestLeaseAfterCrash(t *testing.T) {
	for name, crash := range map[string]func(dir string) error{
		"list lost":           func(dir string) error { return os.Remove(filepath.Join(dir, "free")) },
		"list empty":          func(dir string) error { return os.WriteFile(filepath.Join(dir, "free"), nil, 0o600) },
		"taken, not leased":   func(dir string) error { return os.WriteFile(filepath.Join(dir, "free"), []byte("3\n"), 0o600) },
		"owner without lease": func(dir string) error { return os.Symlink("2", filepath.Join(dir, "owner", "c")) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			p := pool(t, dir, 3)
			a, b := lease(t, p, "a"), lease(t, p, "b")
			if err := crash(dir); err != nil {
				t.Fatal(err)
			}
			c := lease(t, p, "c")
			if c == a || c == b || lease(t, p, "a") != a || lease(t, p, "b") != b {
				t.Errorf("a %d, b %d, c %d", a, b, c)
			}
		})
	}
}

// TestReturnedNumbersRest tells what is sent to the owner before from what is sent to the next.
func TestReturnedNumbersRest(t *testing.T) {
	dir := t.TempDir()
	p := pool(t, dir, 3)
	first := lease(t, p, "a")
	if err := p.Release(context.Background(), "a"); err != nil {
		t.Fatal(err)
	}
	second := lease(t, p, "b")
	if second == first {
		t.Errorf("%d is leased at once, and there are others", first)
	}
	if coming, err := p.Coming(5); err != nil || !slices.Equal(coming, []int{2}) {
		t.Errorf("coming %v, %v", coming, err)
	}
	ago := time.Now().Add(-rest - time.Second).Unix()
	if err := os.WriteFile(filepath.Join(dir, "free"), []byte(fmt.Sprintf("2 %d@%d\n", first, ago)), 0o600); err != nil {
		t.Fatal(err)
	}
	if coming, err := p.Coming(1); err != nil || !slices.Equal(coming, []int{first}) {
		t.Errorf("coming %v, %v", coming, err)
	}
	if got := lease(t, p, "c"); got != first {
		t.Errorf("leased %d, and %d has rested", got, first)
	}
	if err := p.Release(context.Background(), "c"); err != nil {
		t.Fatal(err)
	}
	lease(t, p, "d")
	if got := lease(t, p, "e"); got != first { // there is no other any more
		t.Errorf("leased %d, want %d, which has not rested", got, first)
	}
}
