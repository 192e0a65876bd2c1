//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
)

// beside runs three jobs in two fake labs at a time, and returns what was heard and the error.
func beside(t *testing.T, run func(number int, s *share, tell func(Event)) error) (told []string, err error) {
	t.Helper()
	event := oneByOne(func(e Event) { told = append(told, fmt.Sprintf("%d %d", e.Job, *e.Exit)) })
	err = together(2, 3, func(number int, s *share) error {
		return again(t.Context(), func(Event) {}, s, func(context.Context) error { return run(number, s, event) })
	})
	slices.Sort(told)
	return told, err
}

func ended(s *share, tell func(Event)) {
	tell(Event{Job: s.job, Exit: new(0)})
	s.end()
}

// TestEachJobRunsOnce: labs beside each other have each a job at a time, and no job is that of two.
func TestEachJobRunsOnce(t *testing.T) {
	both := make(chan struct{})
	var once sync.Once
	told, err := beside(t, func(number int, s *share, tell func(Event)) error {
		for s.begin() != NoJob {
			switch number { // none of them runs all
			case 1:
				<-both
			case 2:
				once.Do(func() { close(both) })
			}
			ended(s, tell)
		}
		return nil
	})
	if err != nil || fmt.Sprint(told) != "[0 0 1 0 2 0]" {
		t.Errorf("%v, %v", told, err)
	}
}

// TestALabThatIsLostLeavesTheOther: the job under way in it is its own to run once more, and what it can't run is left to the other.
func TestALabThatIsLostLeavesTheOther(t *testing.T) {
	for name, c := range map[string]struct {
		losses int // Of the lab that has taken job 0.
		told   string
		want   string // Of the error; none when there is none.
	}{
		"once":  {1, "[0 0 1 0 2 0]", ""},
		"twice": {2, "[0 0 1 0 2 0]", ""},
		"three": {3, "[1 0 2 0]", "in 3 labs"},
	} {
		t.Run(name, func(t *testing.T) {
			lost, losses := make(chan struct{}), 0
			told, err := beside(t, func(number int, s *share, tell func(Event)) error {
				for s.begin() != NoJob {
					if s.job == 0 && losses < c.losses {
						if losses++; losses == c.losses {
							close(lost)
						}
						return stood("")
					}
					<-lost
					ended(s, tell)
				}
				return nil
			})
			if fmt.Sprint(told) != c.told || losses != c.losses {
				t.Errorf("after %d losses %v ended, want %s", losses, told, c.told)
			}
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

// TestBothLabsAreTold: an error of one lab doesn't hide that of the other.
func TestBothLabsAreTold(t *testing.T) {
	_, err := beside(t, func(number int, s *share, _ func(Event)) error {
		return errors.New([]string{"no room", "no QEMU"}[number-1])
	})
	for _, want := range []string{"lab 1: no room", "lab 2: no QEMU"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}
