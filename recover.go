package microvm

import (
	"cmp"
	"slices"
)

// RecoverOptions are the options of [Runtime.Recover]. Nil, or the zero value, is the default.
type RecoverOptions struct {
	// DryRun changes nothing: the report says what would be done.
	DryRun bool
}

// ActionKind is what was done about something that was found.
type ActionKind string

// What Recover does.
const (
	ActionAdopted   ActionKind = "adopted"   // A machine that runs is watched by this process, and its network is as its record says.
	ActionEnded     ActionKind = "ended"     // A run whose VMM ended while nobody looked is settled; Info has its Exit.
	ActionUndone    ActionKind = "undone"    // A create or a start that was interrupted is taken back.
	ActionDestroyed ActionKind = "destroyed" // A destroy that was interrupted is finished.
	ActionReturned  ActionKind = "returned"  // What was leased to a machine that is gone is given back.
	ActionRestored  ActionKind = "restored"  // What the host needs for the machines is there again.
	ActionLeft      ActionKind = "left"      // Nothing is done, since another process works on it, or since it can't be: Error says why.
)

// Action is one thing that Recover did, or could not do.
type Action struct {
	Kind  ActionKind `json:"kind"`
	UID   string     `json:"uid,omitempty"`  // Of the machine, where it is about one.
	Name  string     `json:"name,omitempty"` // Its name. Empty where it has none.
	What  string     `json:"what"`           // Such as "start", "slot 7", "host table".
	Error string     `json:"error,omitempty"`
}

// Report is all that Recover did and could not do, in order of uid.
type Report []Action

// Failed returns what could not be done. What another process works on is none of it.
func (r Report) Failed() Report {
	return slices.DeleteFunc(slices.Clone(r), func(a Action) bool { return a.Error == "" })
}

// Sort puts the actions in order: by uid, those of no machine last.
func (r Report) Sort() {
	slices.SortStableFunc(r, func(a, b Action) int {
		if (a.UID == "") != (b.UID == "") {
			return cmp.Compare(b.UID, a.UID)
		}
		return cmp.Compare(a.UID, b.UID)
	})
}
