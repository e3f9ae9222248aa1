/* The part of the compiler's headers that driver_types.h wants; the wheel has them not. */
#define __device_builtin__
#define __device_builtin_texture_type__
#define __device_builtin_surface_type__
#define __cudart_builtin__
#define __builtin_align__(n) __attribute__((aligned(n)))
#define __align__(n) __attribute__((aligned(n)))
#define __host__
#define __device__
#define __forceinline__ inline
#define __inline__ inline
#define __location__(a)
#define CUDARTAPI
