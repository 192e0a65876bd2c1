package microvm

// Evidence is what a restored machine's agent did to make the machine its own, in order. Empty where there is no agent.
type Evidence []EvidenceItem

// EvidenceItem is one of the things that make a machine its own.
type EvidenceItem struct {
	Item      string `json:"item"`                // Such as "clock", "entropy", "machine-id", "hook 10-app".
	Done      bool   `json:"done"`                // It is as it is to be. False, without an Error, where there is nothing to be done.
	Mandatory bool   `json:"mandatory,omitempty"` // A restore fails where it could not be done.
	Detail    string `json:"detail,omitempty"`    // What was done.
	Error     string `json:"error,omitempty"`     // Why not.
}

// Failed returns the items that could not be done.
func (e Evidence) Failed() (failed Evidence) {
	for _, item := range e {
		if item.Error != "" {
			failed = append(failed, item)
		}
	}
	return failed
}
