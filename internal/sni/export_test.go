package sni

import "time"

// LookEvery has a gate look so often at what has moved.
func (o *Options) LookEvery(turn time.Duration) { o.turn = turn }
