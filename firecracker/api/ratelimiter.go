package api

// RateLimiter bounds what a device does, by both buckets. A nil bucket is no bound, in a patch what was before.
type RateLimiter struct {
	Bandwidth *TokenBucket `json:"bandwidth,omitempty"` // Tokens are bytes.
	Ops       *TokenBucket `json:"ops,omitempty"`       // Tokens are operations.
}

// TokenBucket holds tokens, of which every use takes some.
type TokenBucket struct {
	Size         int64 `json:"size"`                     // Tokens, 0 or more. 0 is no bound.
	OneTimeBurst int64 `json:"one_time_burst,omitempty"` // Tokens that are there at first, beside Size, and never again. 0 or more.
	RefillTime   int64 `json:"refill_time"`              // Milliseconds in which an empty bucket fills. 0 is no bound.
}
